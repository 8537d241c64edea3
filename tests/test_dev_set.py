"""All of the real files: what pydicom decodes is stored, or left out for what it is."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import dicomdask
from dicomdask.errors import InputError
from dicomdask.pixels import reference_frame
from dicomdask.plan import source_key
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.test_pixels import quietly

FOLDERS = (
    *("pydicom__pydicom-data", "cornerstonejs__cornerstone3D", "QIICR__dcmqi"),
    *("pydicom__pydicom", "ImagingDataCommons__highdicom"),
)
MODALITIES = (
    "OT",
    "US",
    "DX",
    "CR",
    "XA",
    "RTDOSE",
    "RTIMAGE",
    "SM",
    "SEG",
    "ES",
    "MG",
)
DECODING = {
    *("bad-image", "bad-pixels", "bit-depth", "colour", "decoder-crash"),
    *("modality-lut", "no-decoder", "truncated", "unexpected"),
}
"""Codes that say that pixels cannot be decoded."""


@pytest.mark.filterwarnings("ignore")
def test_line_25_what_pydicom_decodes_is_stored(
    data: Path, tmp_path: Path, key_file: Path, key: Any, full: bool
) -> None:
    names = sorted(one.name for one in data.iterdir()) if full else FOLDERS
    store = tmp_path / "store.zarr"
    dicomdask.convert(
        [str(data / name) for name in names if (data / name).is_dir()],
        str(store),
        scheduler="synchronous",
        key_file=str(key_file),
        trust_pixels=MODALITIES,
    )
    work = Work(f"{store}.work")
    urls = {
        source_key(file.url, key): file.url
        for part in work.manifest_parts()
        for file in work.read_manifest(part)
    }
    inputs = dicomdask.open_dataset(str(store)).inputs
    codes = Counter(inputs["code"])
    assert codes["stored"] > 80
    for row in inputs.itertuples():
        if row.code in DECODING:
            with quietly(), pytest.raises(InputError):
                reference_frame(Path(urls[row.source_key]).read_bytes(), 0)
    report = verify(str(store), work=work, key=key)
    assert not report.problems
    assert report.n_frames >= codes["stored"]
