"""A large pile of tiny CT files, written fast: one file with other numbers in it."""

from pathlib import Path

import numpy as np

from tests.builders import ROOT, make_instance, to_bytes

SLICES_PER_SERIES = 100
SERIES_PER_PATIENT = 4


def write_pile(folder: Path, n_files: int) -> int:
    """Write files of a 2 x 2 CT; return their bytes.

    Every hundred are a series, every four series a study of another patient.
    """
    template = _template()
    written = 0
    for first in range(0, n_files, SLICES_PER_SERIES):
        series = first // SLICES_PER_SERIES
        below = folder / f"{series // 1000:04d}" / f"{series:07d}"
        below.mkdir(parents=True)
        for number in range(min(SLICES_PER_SERIES, n_files - first)):
            data = _filled(template, series, number)
            (below / f"{number:04d}.dcm").write_bytes(data)
            written += len(data)
    return written


def _template() -> bytes:
    """Return a file in which what differs is a mark of its final length."""
    uid = f"{ROOT}.1111111"
    ds = make_instance(
        pixels=np.arange(4, dtype=np.int16).reshape(2, 2),
        PatientID="PATIENT2222222",
        StudyInstanceUID=f"{uid}.2222222",
        SeriesInstanceUID=f"{uid}.3333333",
        SOPInstanceUID=f"{uid}.3333333.4444",
        FrameOfReferenceUID=f"{uid}.2222222.5",
        ImagePositionPatient=["0", "0", "1234.55"],
    )
    return to_bytes(ds)


def _filled(template: bytes, series: int, number: int) -> bytes:
    patient = 1_000_000 + series // SERIES_PER_PATIENT
    marks = {
        b"4444": b"%04d" % (1000 + number),  # first: a longer number may hold it
        b"2222222": b"%07d" % patient,
        b"3333333": b"%07d" % (1_000_000 + series),
        b"1234.55": b"%07.2f" % (2.5 * number),
    }
    data = template
    for mark, value in marks.items():
        data = data.replace(mark, value)
    return data
