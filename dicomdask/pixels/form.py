"""How the pixels of a data set are written: the Image Pixel Module, parsed once.

PS3.3 section C.7.6.3; what contradicts itself is refused here, so nobody asks again.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.tag import Tag
from pydicom.uid import UID

from dicomdask.errors import InputError
from dicomdask.pixels.excerpt import REMEMBERED, Excerpt, excerpt

MONOCHROME: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
PALETTE: Final = "PALETTE COLOR"
COLOURS: Final = frozenset(
    {
        *("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
        "YBR_PARTIAL_422",
    }
)
"""Photometric interpretations of three samples that are held as RGB."""

FLOATS: Final = {"FloatPixelData": "float32", "DoubleFloatPixelData": "float64"}
KEYWORDS: Final = ("PixelData", *FLOATS)


# Looked up by tag, several times as fast as by keyword: this is done for each file.
_SAMPLES, _PHOTOMETRIC, _PLANAR = 0x00280002, 0x00280004, 0x00280006
_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _SIGN = 0x00280100, 0x00280101, 0x00280103
_READ: Final = tuple(
    map(
        Tag,
        (
            *(_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES, _ROWS, _COLUMNS),
            *(_ALLOCATED, _STORED, _SIGN),
        ),
    )
)
_PIXELS: Final = {word: Tag(word) for word in KEYWORDS}


@dataclass(frozen=True, slots=True)
class Form:
    """How the frames of a data set are written.

    Attributes
    ----------
    syntax
        The transfer syntax.
    keyword
        Which element holds the pixels.
    allocated, stored
        Bits Allocated and Bits Stored; of floats both are the bits of a float.
    signed
        Whether Pixel Representation says two's complement.
    planar
        Planar Configuration: 0 where it is absent.
    """

    syntax: UID
    keyword: str
    n_frames: int
    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    planar: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of a sample, in the machine's byte order."""
        if self.keyword in FLOATS:
            return np.dtype(FLOATS[self.keyword])
        nbytes = {1: 1, 12: 2}.get(self.allocated, self.allocated // 8)
        return np.dtype(f"{'i' if self.signed else 'u'}{nbytes}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of a frame as it is written, samples last."""
        plane = (self.rows, self.columns)
        return plane if self.samples == 1 else (*plane, self.samples)

    @property
    def n_values(self) -> int:
        """Return how many samples of a frame are there; chroma may be subsampled."""
        n = self.rows * self.columns * self.samples
        return n // 3 * 2 if self.photometric.endswith("_422") else n

    @property
    def frame_bits(self) -> int:
        """Return how many bits an uncompressed frame has."""
        return self.n_values * self.allocated


def read_form(dataset: pydicom.Dataset) -> Form:
    """Return how the pixels of a data set are written.

    Raises
    ------
    InputError
        With the code ``truncated``, ``colour``, ``bit-depth`` or ``bad-image``.
    """
    # pydicom leaves out pixel data that end before their delimiter.
    there = dataset.keys()
    keyword = next((word for word, tag in _PIXELS.items() if tag in there), None)
    if keyword is None:
        raise InputError("truncated")
    syntax = dataset.file_meta.TransferSyntaxUID
    told = excerpt(dataset, _READ)
    if told is None:
        return _form_of(dataset, keyword, syntax)
    return _remembered_form(told, keyword, syntax)


@lru_cache(REMEMBERED)
def _remembered_form(told: Excerpt, keyword: str, syntax: UID) -> Form:
    return _form_of(told.dataset(), keyword, syntax)


def _form_of(dataset: pydicom.Dataset, keyword: str, syntax: UID) -> Form:
    samples = int(dataset[_SAMPLES].value)
    photometric = str(dataset[_PHOTOMETRIC].value or "").strip().upper()
    allocated = int(dataset[_ALLOCATED].value)
    is_float = keyword in FLOATS
    form = Form(
        syntax=syntax,
        keyword=keyword,
        n_frames=_optional(dataset, _FRAMES) or 1,
        rows=int(dataset[_ROWS].value),
        columns=int(dataset[_COLUMNS].value),
        samples=samples,
        photometric=photometric,
        allocated=allocated,
        stored=allocated if is_float else int(dataset[_STORED].value),
        signed=not is_float and int(dataset[_SIGN].value) == 1,
        planar=_optional(dataset, _PLANAR) if samples > 1 else 0,
    )
    code = image_code(photometric, samples) or depth_code(
        keyword, allocated, form.stored, photometric
    )
    if code:
        raise InputError(code)
    return form


def _optional(dataset: pydicom.Dataset, tag: int) -> int:
    """Return a whole number; 0 where it is absent or empty."""
    return int(dataset[tag].value or 0) if tag in dataset else 0


def image_code(photometric: str | None, samples: int | None) -> str | None:
    """Return the code of a combination that is not stored (PS3.3 C.7.6.3.1.2)."""
    if samples is None or samples < 1 or not photometric:
        return "bad-image"
    if samples == 1:
        known = photometric in MONOCHROME or photometric == PALETTE
        return None if known else "bad-image"
    if samples == 3:
        return None if photometric in COLOURS else "colour"
    return "colour" if samples == 4 else "bad-image"


def depth_code(
    keyword: str | None, allocated: int, stored: int, photometric: str
) -> str | None:
    """Return the code of a depth that is not stored (PS3.5 section 8.1.1)."""
    if keyword in FLOATS:
        whole = allocated == 8 * np.dtype(FLOATS[keyword]).itemsize
        return None if whole and photometric in MONOCHROME else "bit-depth"
    if allocated not in {1, 8, 12, 16, 32} or not 1 <= stored <= allocated:
        return "bit-depth"
    if allocated in {1, 12} and photometric not in MONOCHROME:
        return "bit-depth"
    if photometric.startswith("YBR") and stored not in {8, 16}:
        return "bit-depth"
    return "bit-depth" if photometric == PALETTE and allocated > 16 else None
