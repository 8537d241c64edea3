"""A corpus whose truth is known by construction, and the score of what came of it.

The ten actions are those of the MIDI-B challenge. The values that must go are drawn
anew each time; those that must stay are what protocols are called.
"""

import csv
import hashlib
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

from tests.builders import make_instance, to_bytes

ACTIONS = (
    *("tag retained", "text not null", "text retained", "text removed"),
    *("date shifted", "UID changed", "UID consistent", "patient ID consistent"),
    *("pixels hidden", "pixels retained"),
)
PROTOCOLS = (
    *("CT CHEST W/O CONTRAST", "T2 AX BRAIN", "LIVER DYNAMIC ARTERIAL PHASE"),
    *("ABDOMEN PELVIS WITH CONTRAST", "KNEE COR PD FS", "WHOLE BODY FDG"),
)
TECHNICAL = (
    *("Rows", "Columns", "BitsStored", "PixelSpacing", "SliceThickness", "KVP"),
    *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "ImageType"),
    *("InstanceNumber", "PatientPosition", "ConvolutionKernel", "ExposureTime"),
)
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
UIDS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    "FrameOfReferenceUID",
)
KINDS = (
    ("CT", "1.2.840.10008.5.1.4.1.1.2"),
    ("MR", "1.2.840.10008.5.1.4.1.1.4"),
    ("PT", "1.2.840.10008.5.1.4.1.1.128"),
)


@dataclass(frozen=True, slots=True)
class Truth:
    """What has to become of one file.

    `removed` must be in no byte, `retained` are texts by keyword; `is_marked` tells
    that a text is burned into its pixels.
    """

    source: Dataset
    removed: tuple[str, ...]
    retained: dict[str, str]
    is_marked: bool = False


@dataclass(slots=True)
class Score:
    """Hits and all of each action, and a line for every miss."""

    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    totals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    misses: list[str] = field(default_factory=list)

    def add(self, action: str, *, hit: bool, what: str) -> None:
        """Count one check."""
        self.totals[action] += 1
        self.hits[action] += hit
        if not hit:
            self.misses.append(f"{action}: {what}")

    def percent(self, action: str) -> float:
        """Return the share of hits."""
        return 100 * self.hits[action] / self.totals[action]

    def table(self) -> str:
        """Return one line an action."""
        return "\n".join(
            f"{action:24}{self.hits[action]:>7} of {self.totals[action]:<7}"
            f"{self.percent(action):7.2f} %"
            for action in ACTIONS
        )


def _word() -> str:
    return f"Zq{secrets.token_hex(4)}"


def write_corpus(folder: Path, n_patients: int = 6) -> list[Truth]:
    """Write two studies a patient, and return the truth of each file."""
    folder.mkdir()
    truths = []
    for patient in range(n_patients):
        identity = (_word(), f"{_word()}^{_word()}", _word())
        for study in range(2):
            truths += list(_study(patient, study, identity))
    for number, truth in enumerate(truths):
        (folder / f"{number:05d}.dcm").write_bytes(to_bytes(truth.source))
    return truths


def _study(patient: int, study: int, identity: tuple[str, str, str]) -> Iterator[Truth]:
    day = date(1995 + secrets.randbelow(25), 1 + secrets.randbelow(12), 15)
    number, name, doctor = identity
    modality, sop_class = KINDS[(patient + study) % len(KINDS)]
    for instance in range(1, 4):
        protocol = PROTOCOLS[(patient + study + instance) % len(PROTOCOLS)]
        ds = make_instance(patient, study, 1, instance, Modality=modality)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        ds.PatientID, ds.PatientName = number, name
        ds.ReferringPhysicianName = doctor
        ds.KVP, ds.PatientPosition, ds.ConvolutionKernel = "120", "HFS", "B30f"
        ds.ExposureTime, ds.Manufacturer = "500", "SIEMENS"
        for offset, keyword in enumerate(DATES):
            moved = date.fromordinal(day.toordinal() + offset)
            setattr(ds, keyword, f"{moved:%Y%m%d}")
        comment, phone, private = _word(), f"555{secrets.randbelow(10**7):07d}", _word()
        ds.SeriesDescription = f"{protocol} {name.split('^')[0]} {phone}"
        ds.ImageComments = f"{comment} called {phone}"
        ds.PatientAddress, ds.AccessionNumber = _word(), _word()
        ds.private_block(0x0029, "ACME", create=True).add_new(1, "LO", private)
        reference = Dataset()
        reference.ReferencedSOPClassUID = sop_class
        reference.ReferencedSOPInstanceUID = ds.SOPInstanceUID.rsplit(".", 1)[0] + ".1"
        ds.ReferencedImageSequence = [reference]
        marked = instance == 3
        if marked:
            ds.BurnedInAnnotation = "YES"
        removed = (number, *name.split("^"), doctor, comment, phone, private)
        kept = {"SeriesDescription": protocol, "Manufacturer": "SIEMENS"}
        yield Truth(ds, (*removed, str(ds.PatientAddress)), kept, marked)


def score(truths: Iterable[Truth], outputs: Iterable[Path], mappings: Path) -> Score:
    """Score what a tool wrote, by its two mapping files of old and new identifiers."""
    uids = _mapping(mappings / "uid_mapping.csv")
    patients = _mapping(mappings / "patient_mapping.csv")
    raw = {path: path.read_bytes() for path in outputs}
    read = {path: pydicom.dcmread(path) for path in raw}
    made = {str(ds.SOPInstanceUID): path for path, ds in read.items()}
    found, shifts = Score(), defaultdict(set)
    for truth in truths:
        path = made.get(uids.get(str(truth.source.SOPInstanceUID), ""))
        what = f"{truth.source.Modality} {truth.source.InstanceNumber}"
        if truth.is_marked:
            found.add("pixels hidden", hit=path is None, what=what)
            continue
        if path is None:
            for action in ("tag retained", "text retained", "pixels retained"):
                found.add(action, hit=False, what=f"{what} is missing")
            continue
        ds = read[path]
        _score_texts(found, truth, ds, raw[path], what)
        _score_identity(found, truth, ds, uids, patients, what)
        _score_dates(found, truth, ds, shifts, what)
        same = _digest(ds) == _digest(truth.source)
        found.add("pixels retained", hit=same, what=what)
    return found


def _digest(ds: Dataset) -> str:
    return hashlib.sha256(np.ascontiguousarray(ds.pixel_array).tobytes()).hexdigest()


def _mapping(path: Path) -> dict[str, str]:
    with path.open() as file:
        return {row["id_old"]: row["id_new"] for row in csv.DictReader(file)}


def _score_texts(
    found: Score, truth: Truth, ds: Dataset, raw: bytes, what: str
) -> None:
    for keyword in TECHNICAL:
        same = ds.get(keyword) == truth.source.get(keyword)
        found.add("tag retained", hit=same, what=f"{what} {keyword}")
    for keyword, text in truth.retained.items():
        value = str(ds.get(keyword, ""))
        found.add("text not null", hit=bool(value), what=f"{what} {keyword}")
        found.add("text retained", hit=value == text, what=f"{what} {keyword}")
    for text in truth.removed:
        gone = text.encode() not in raw
        found.add("text removed", hit=gone, what=f"{what} one of {len(truth.removed)}")


def _score_identity(
    found: Score,
    truth: Truth,
    ds: Dataset,
    uids: dict[str, str],
    patients: dict[str, str],
    what: str,
) -> None:
    for keyword in UIDS:
        old, new = str(truth.source.get(keyword)), str(ds.get(keyword))
        found.add("UID changed", hit=old != new, what=f"{what} {keyword}")
        found.add("UID consistent", hit=uids.get(old) == new, what=f"{what} {keyword}")
    old = truth.source.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    new = ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    found.add("UID consistent", hit=uids.get(old) == new, what=f"{what} reference")
    same = patients.get(str(truth.source.PatientID)) == str(ds.PatientID)
    found.add("patient ID consistent", hit=same, what=what)


def _score_dates(
    found: Score,
    truth: Truth,
    ds: Dataset,
    shifts: dict[str, set[int]],
    what: str,
) -> None:
    """All dates of a patient move by the same days, never by none."""
    for keyword in DATES:
        days = shifts[str(truth.source.PatientID)]
        value = str(ds.get(keyword) or "")
        if value:
            moved = _day(value) - _day(str(truth.source.get(keyword)))
            days.add(moved)
        hit = bool(value) and days == {moved} and moved != 0
        found.add("date shifted", hit=hit, what=f"{what} {keyword}")


def _day(text: str) -> int:
    return datetime.strptime(text, "%Y%m%d").toordinal()
