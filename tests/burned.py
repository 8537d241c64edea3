"""Text burned into real backgrounds: lines whose place, style and contrast are known.

Backgrounds are frames, or parts of them, that were looked at by eye and hold no text.
Half of them and half of the fonts are held back: what is tuned sees the others only.
Text is drawn into stored values, of 8 to 16 bits or colour, and then displayed. All of
it follows from the seed. Without the real files (DICOMDASK_TEST_DATA), backgrounds are
smooth fields plus noise.
"""

import dataclasses
import os
import string
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.pixels import apply_color_lut
from scipy.ndimage import binary_dilation, gaussian_filter, grey_dilation

from dicomdask.model import Box

Array = np.ndarray[Any, np.dtype[Any]]

FAINT = 64
"""Low contrast: ink differs from what surrounds it by less than a quarter of 255."""
LEGIBLE = 16
"""What differs by less than this, or by less than its surroundings vary (one standard
deviation), is not counted, as nobody could read it."""

SIZES = (8, 10, 12, 14, 18, 24, 32, 40)
"""Of fonts, in pixels; from the top of an H to the foot of a g it is about as much."""
STYLES = ("plain", "outlined", "boxed", "shadow", "faint")
PLACES = ("dark", "bright", "textured")
MARGIN = 8
"""Of pixels around ink: for what styles put there."""
HUES = ((1, 1, 1), (1, 1, 0.2), (0.2, 1, 0.3), (0.3, 0.9, 1), (1, 0.6, 0.2))
"""White, yellow, green, cyan and orange."""


@dataclass(frozen=True, slots=True)
class Background:
    """A frame of a file below DICOMDASK_TEST_DATA, or the text-free part of one."""

    path: str
    part: Box | None = None
    frame: int = 0


_CORNERSTONE = "cornerstonejs__cornerstone3D/packages/dicomImageLoader/testImages"
_PYDICOM = "pydicom__pydicom/src/pydicom/data/test_files"
_PYDICOM_DATA = "pydicom__pydicom-data/data_store/data"
_DCMJS = "dcmjs-org__dcmjs"
_NIBABEL = "nipy__nibabel/nibabel/nicom/tests/data"
_HIGHDICOM = "ImagingDataCommons__highdicom/data/test_files"
_PYNETDICOM = "pydicom__pynetdicom/pynetdicom/tests/dicom_files"
_ULTRASOUNDS = "pydicom__deid-data/deid_data/data/ultrasounds"

TUNED_ON = (
    Background("QIICR__dcmqi/data/segmentations/ct-3slice/01.dcm"),
    Background(f"{_CORNERSTONE}/CTImage.dcm"),
    Background(f"{_CORNERSTONE}/US-YBR_FULL_422-EVRLE.dcm", Box(82, 215, 480, 755)),
    Background(f"{_DCMJS}/examples/data/IM-0001-0001.dcm"),
    Background(f"{_DCMJS}/test/cine-test.dcm", frame=4),
    Background(f"{_DCMJS}/test/sample-dicom.dcm"),
    Background(f"{_DCMJS}/test/sample-op.dcm"),
    Background(f"{_NIBABEL}/slicethickness_empty_string.dcm"),
    Background("qurit__rt-utils/tests/mock_data/ct_1.dcm"),
    Background(f"{_PYDICOM_DATA}/JPEG-LL.dcm"),
    Background(f"{_PYDICOM_DATA}/RG3_J2KR.dcm", Box(0, 300, 1760, 1130)),
    Background(f"{_PYDICOM_DATA}/US1_UNCR.dcm", Box(135, 60, 335, 590)),
    Background(f"{_PYDICOM_DATA}/gdcm-US-ALOKA-16.dcm", Box(75, 115, 400, 620)),
)
HELD_BACK = (
    Background(f"{_CORNERSTONE}/CT1_J2KR"),
    Background(f"{_CORNERSTONE}/CT2_J2KR"),
    Background(f"{_HIGHDICOM}/dx_image.dcm"),
    Background(f"{_PYDICOM}/J2K_pixelrep_mismatch.dcm"),
    Background(f"{_PYDICOM}/examples_overlay.dcm"),
    Background(f"{_PYDICOM}/examples_ybr_color.dcm", Box(26, 38, 205, 255), frame=15),
    Background(
        f"{_PYDICOM_DATA}/JPGLosslessP14SV1_1s_1f_8b.dcm", Box(190, 150, 650, 600)
    ),
    Background(f"{_PYDICOM_DATA}/MR2_J2KI.dcm"),
    Background(f"{_PYDICOM_DATA}/RG1_J2KI.dcm"),
    Background(f"{_PYDICOM_DATA}/bad_sequence.dcm"),
    Background(f"{_PYDICOM_DATA}/explicit_VR-UN.dcm"),
    Background(f"{_PYNETDICOM}/RTImageStorage.dcm"),
    Background(f"{_ULTRASOUNDS}/GREYSCALE_IMAGE.dcm", Box(130, 140, 680, 880)),
)
"""Each was looked at by eye: no text, no letters, no digits."""

TUNED_FONTS = (
    *("DejaVuSans", "DejaVuSerif-Bold", "DejaVuSansMono-Oblique"),
    *("STIXGeneralItalic", "cmtt10", "bitmap"),
)
HELD_BACK_FONTS = (
    *("DejaVuSansMono", "DejaVuSans-Bold", "DejaVuSerif"),
    *("STIXGeneralBol", "cmss10", "Aileron"),
)
"""Families are cut too; `bitmap` and `Aileron` are what Pillow brings."""

FAMILIES = ("OLIVEIRA", "Schneider", "O'Neill", "NAKAMURA", "van der Berg", "Kowalska")
GIVEN = ("Maria", "JOHN", "Aino", "T.", "Giulia", "PETER", "Zoe")
CYRILLIC_AND_GREEK = ("ИВАНОВА ОЛЬГА", "Петров Сергей", "ΠΑΠΑΔΟΠΟΥΛΟΣ", "Νίκος Ιωάννου")
HOSPITALS = ("ST. MARY HOSPITAL", "Klinikum Nord", "City Medical Ctr", "CHU Lyon Sud")


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Stored values, and how they are displayed.

    `low` and `high` are what is black and white; inverted, the other way round.
    """

    values: Array
    low: float
    high: float
    largest: float
    inverted: bool = False

    def shown(self) -> Array:
        """Return uint8, bright is bright."""
        scaled = (self.values.astype(np.float32) - self.low) / (self.high - self.low)
        scaled = np.clip(scaled, 0, 1)
        return ((1 - scaled if self.inverted else scaled) * 255).astype(np.uint8)

    def stored(self, grey: float) -> float:
        """Return the value that is displayed so."""
        grey = 255 - grey if self.inverted else grey
        return min(self.low + grey / 255 * (self.high - self.low), self.largest)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of text as it was drawn: where its ink is, and of what kind it is."""

    ink: Array
    box: Box
    text: str
    font: str
    size: int
    style: str
    place: str
    contrast: float

    @property
    def is_faint(self) -> bool:
        """Tell whether its contrast is low."""
        return self.contrast < FAINT

    def covered(self, mask: Array) -> float:
        """Return the share of its ink that a mask of the image covers."""
        box = self.box
        there = mask[box.top : box.bottom, box.left : box.right]
        return float((there & self.ink).sum() / self.ink.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A displayed frame and the lines that were drawn into it."""

    image: Array
    lines: tuple[Line, ...]


def backgrounds(*, held_back: bool) -> list[Field]:
    """Return one half of the backgrounds."""
    root = os.environ.get("DICOMDASK_TEST_DATA")
    if not root:
        return [_generated(seed + 10 * held_back) for seed in range(3)]
    return [_field(Path(root), one) for one in (HELD_BACK if held_back else TUNED_ON)]


@cache
def _field(root: Path, background: Background) -> Field:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(root / background.path)
        values = ds.pixel_array
    if int(ds.get("NumberOfFrames") or 1) > 1:
        values = values[background.frame]
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, ds) >> 8
    if part := background.part:
        values = values[part.top : part.bottom, part.left : part.right]
    if values.ndim == 3:
        return Field(values.astype(np.float32), 0, 255, 255)
    low, high = _window(ds) or np.percentile(values, [0.5, 99.5]).tolist()
    largest = (1 << (ds.BitsStored - ds.PixelRepresentation)) - 1
    inverted = ds.PhotometricInterpretation == "MONOCHROME1"
    return Field(values.astype(np.float32), low, high, largest, inverted)


def _window(ds: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the stored values that the first window shows black and white."""
    if "WindowWidth" not in ds:
        return None
    center, width = (
        float(np.atleast_1d(ds[name].value)[0])
        for name in ("WindowCenter", "WindowWidth")
    )
    middle = center - float(ds.get("RescaleIntercept", 0))
    slope = float(ds.get("RescaleSlope", 1))
    return (middle - width / 2) / slope, (middle + width / 2) / slope


def _generated(seed: int) -> Field:
    chance = np.random.default_rng(seed)
    field = gaussian_filter(chance.normal(size=(360, 480)), 24)
    values = 2000 + 600 * field / field.std() + chance.normal(0, 40, field.shape)
    return Field(values.astype(np.float32), 0, 4095, 4095)


def scenes(
    n_lines: int,
    *,
    held_back: bool,
    seed: int = 0,
    lines_each: int = 5,
    styles: tuple[str, ...] = STYLES,
) -> Iterator[Scene]:
    """Yield scenes that together hold at least so many lines.

    Backgrounds take turns, and so do fonts, styles, sizes and places, each at its own
    pace; where a line does not fit or is not legible, it is not drawn.
    """
    fields = backgrounds(held_back=held_back)
    fonts = HELD_BACK_FONTS if held_back else TUNED_FONTS
    chance = np.random.default_rng([seed, held_back])
    drawn = n_scenes = n_tried = 0
    while drawn < n_lines:
        canvas = Canvas(fields[n_scenes % len(fields)], chance)
        for _ in range(lines_each):
            canvas.draw(
                font=fonts[n_tried % len(fonts)],
                style=styles[int(chance.integers(len(styles)))],
                size=SIZES[int(chance.integers(len(SIZES)))],
                place=PLACES[int(chance.integers(len(PLACES)))],
            )
            n_tried += 1
        scene = canvas.scene()
        n_scenes, drawn = n_scenes + 1, drawn + len(scene.lines)
        yield scene


def words(chance: np.random.Generator, font: str) -> str:
    """Return what devices burn in: a name, a date, a number, a place, or several."""

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(chance.integers(len(choices)))]

    year, month, day, hour, minute, number = (
        int(chance.integers(low, high))
        for low, high in (
            (1920, 2026),
            (1, 13),
            (1, 29),
            (0, 24),
            (0, 60),
            (1000, 10**8),
        )
    )
    name = f"{one_of(FAMILIES)}, {one_of(GIVEN)}"
    if font.startswith(("DejaVu", "STIX")) and chance.random() < 0.3:
        name = one_of(CYRILLIC_AND_GREEK)
    letter = string.ascii_uppercase[int(chance.integers(26))]
    return one_of(
        (
            name,
            f"{name} {number}",
            f"DOB: {day:02d}/{month:02d}/{year}",
            f"{year}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}",
            f"ID {letter}{number}",
            f"MRN{number}",
            one_of(HOSPITALS),
            f"{one_of(HOSPITALS)} {day}.{month}.{year}",
        )
    )


@cache
def _font(name: str, size: int) -> Any:
    if name == "bitmap":
        return ImageFont.load_default_imagefont()
    if name == "Aileron":
        return ImageFont.load_default(size)
    if name.endswith((".ttf", ".ttc")):  # of the system
        return ImageFont.truetype(name, size)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / f"{name}.ttf", size)


def text_mask(text: str, font: str, size: int, *, sharp: bool) -> Array:
    """Return how much of each pixel is ink, from 0 to 1, with a margin around.

    `sharp` is without grey edges; `bitmap` has one size, enlarged by whole factors.
    """
    plane = Image.new("L", (2 * size * len(text) + 40, 3 * size + 40))
    draw = ImageDraw.Draw(plane)
    draw.fontmode = "1" if sharp else "L"
    draw.text((20, 20), text, fill=255, font=_font(font, size))
    mask = np.asarray(plane)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if font == "bitmap":
        mask = np.kron(mask, np.ones((max(1, round(size / 11)),) * 2, np.uint8))
    return np.pad(mask, MARGIN) / np.float32(255)


def _under(ink: Array, style: str) -> Array:
    """Return where a style puts something under the ink, from 0 to 1."""
    if style == "outlined":
        return grey_dilation(ink, (3, 3))
    if style == "shadow":
        return np.roll(ink, (1 + MARGIN // 8, 1 + MARGIN // 8), (0, 1))
    under = np.zeros_like(ink)
    if style == "boxed":
        under[2:-2, 2:-2] = 1
    return under


class Canvas:
    """A field that lines are drawn into, and where some are already."""

    def __init__(self, field: Field, chance: np.random.Generator) -> None:
        values = field.values.copy()
        if values.ndim == 2 and field.largest == 255 and chance.random() < 0.5:
            values = np.stack([values] * 3, axis=-1)
        self._field = dataclasses.replace(field, values=values)
        self._before = self._field.shown()
        self._taken = np.zeros(values.shape[:2], bool)
        self._chance = chance
        self._lines: list[Line] = []

    def scene(self) -> Scene:
        """Return what was drawn."""
        return Scene(self._field.shown(), tuple(self._lines))

    def draw(self, *, font: str, style: str, size: int, place: str) -> None:
        """Draw a line where it fits, the best at such a place."""
        text = words(self._chance, font)
        ink = text_mask(text, font, size, sharp=self._chance.random() < 0.3)
        self.put(ink, text=text, font=font, size=size, style=style, place=place)

    def put(
        self, ink: Array, *, text: str, font: str, size: int, style: str, place: str
    ) -> None:
        """Draw ink that is made already."""
        found = self._find(ink.shape, place)
        if found is None:
            return
        box, place = found
        there = np.s_[box.top : box.bottom, box.left : box.right]
        before = self._field.values[there].copy()
        self._blend(there, ink, style)
        contrast, varied = self._contrast(there, ink)
        if contrast < max(LEGIBLE, varied):
            self._field.values[there] = before
            return
        self._taken[there] = True
        marked = ink > 0.5 * ink.max()
        self._lines.append(Line(marked, box, text, font, size, style, place, contrast))

    def _find(self, shape: tuple[int, ...], wanted: str) -> tuple[Box, str] | None:
        """Return a free box, where it can be one at a place as wanted."""
        room = [n - m for n, m in zip(self._taken.shape, shape, strict=True)]
        found = None
        for _ in range(30 if min(room) > 0 else 0):
            top, left = (int(self._chance.integers(n)) for n in room)
            box = Box(top, left, top + shape[0], left + shape[1])
            there = np.s_[box.top : box.bottom, box.left : box.right]
            if not self._taken[there].any():
                found = box, _place(self._before[there])
                if found[1] == wanted:
                    break
        return found

    def _blend(self, there: tuple[slice, slice], ink: Array, style: str) -> None:
        """Draw ink into the stored values."""
        values, chance = self._field.values, self._chance
        mean = float(np.median(self._before[there]))
        sign = 1 if mean < 128 else -1
        if style == "boxed" and chance.random() < 0.5:
            sign = -sign
        bright, dark = chance.uniform(180, 255), chance.uniform(0, 60)
        over, below = (bright, dark) if sign > 0 else (dark, bright)
        if style == "faint":  # adds to what is there, as what can be seen through does
            step = sign * chance.uniform(1.2 * LEGIBLE, FAINT)
            change = self._field.stored(step) - self._field.stored(0)
            values[there] += _deep(ink, values) * np.float32(change)
        else:
            for mask, grey in ((_under(ink, style), below), (ink, over)):
                paint = self._paint(grey, mask is ink)
                share = _deep(mask, values)
                values[there] = values[there] * (1 - share) + share * paint
        np.clip(np.rint(values[there]), None, self._field.largest, out=values[there])

    def _paint(self, grey: float, is_ink: bool) -> Array:
        """Return the stored value of a grey, or of a colour about as bright."""
        field, chance = self._field, self._chance
        if field.values.ndim == 3:
            hue = HUES[int(chance.integers(len(HUES)))] if is_ink else HUES[0]
            return np.array(hue, np.float32) * np.float32(grey)
        if grey > 180 and not field.inverted and chance.random() < 0.5:
            return np.float32(field.largest)
        return np.float32(field.stored(grey))

    def _changed(self, there: tuple[slice, slice]) -> Array:
        """Return how much each pixel of the display differs from the background."""
        shown = self._shown(there).astype(np.int16)
        change = np.abs(shown - self._before[there])
        return change.max(axis=-1) if change.ndim == 3 else change

    def _shown(self, there: tuple[slice, slice]) -> Array:
        cut = dataclasses.replace(self._field, values=self._field.values[there])
        return cut.shown()

    def _contrast(self, there: tuple[slice, slice], ink: Array) -> tuple[float, float]:
        """Return how much ink differs from what is around it, and how varied that is.

        Both of the display, of 255; of colours, the channel where ink stands out most.
        """
        shown = self._shown(there).astype(np.float32)
        edge = binary_dilation(ink > 0.1)
        ring = binary_dilation(edge, iterations=2) & ~edge
        inside, around = shown[ink > 0.5 * ink.max()], shown[ring]
        contrast = np.abs(np.median(inside, axis=0) - np.median(around, axis=0))
        varied = np.broadcast_to(around.std(axis=0), contrast.shape)
        best = np.unravel_index(np.argmax(contrast), contrast.shape)
        return float(contrast[best]), float(varied[best])


def _deep(mask: Array, values: Array) -> Array:
    return mask[..., np.newaxis] if values.ndim == 3 else mask


def _place(shown: Array) -> str:
    """Return what kind of place the display is."""
    grey = shown.reshape(*shown.shape[:2], -1).mean(axis=-1)
    if grey.std() >= 20:
        return "textured"
    return "dark" if grey.mean() < 80 else "bright"
