"""Text that the corpus of `tests.burned` has not: turned, huge, cut, foreign, by hand.

Each stratum is drawn and counted by itself, over small parts of the same backgrounds,
of which half are held back; so are its fonts. Fonts that are not installed leave their
stratum out: continuous integration installs them (DejaVu has what Arabic needs too).
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import grey_dilation

from dicomdask.model import Box
from tests import burned
from tests.burned import Array, Canvas, Field, Line, Scene

MARKS = ("R", "L", "P", "AP", "LAT", "19", "7", "LPO", "R 2", "PA")
NAMES = ("OLIVEIRA M.", "1970-01-02", "MRN 40217", "DOB 3/4/61", "Klinik Nord")
CYRILLIC = ("ИВАНОВА ОЛЬГА", "Петров Юрий 1970", "Больница № 4", "Щербакова Юлия")
ARABIC = ("محمد أحمد", "فاطمة الزهراء", "مستشفى السلام", "علي حسن ١٩٧٠")
CJK = ("山田太郎", "王小明 1970", "东京医院", "김민수", "北京协和医院", "鈴木 花子")


@dataclass(frozen=True, slots=True)
class Stratum:
    """How the lines of one kind are drawn.

    `fonts` are those to tune on and those held back; without, they are the corpus's.
    `side` is that of the part of a background that is shown.
    """

    texts: tuple[str, ...] = NAMES
    fonts: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    sizes: tuple[int, ...] = (12, 16, 24, 36)
    styles: tuple[str, ...] = ("plain", "outlined", "boxed")
    side: int = 320
    lines_each: int = 2
    ink: Callable[[Array], Array] = np.asarray
    ground: Callable[[Array], Array] = np.asarray
    """Changes the part of a background, which is uint8 and may be in colour."""
    cut: Callable[[Scene, int], Scene] | None = None
    """Changes a scene with what is drawn, by a number that counts up."""


def _outline(ink: Array) -> Array:
    """Return what is around ink, and nothing within."""
    return np.clip(grey_dilation(ink, (3, 3)) - ink, 0, 1)


def _in_ring(ink: Array) -> Array:
    """Return ink in a ring, as marks of sides are; the ring is too faint to count."""
    side = int(np.ceil(np.hypot(*ink.shape))) - burned.MARGIN
    plane = Image.new("L", (side + 12, side + 12))
    ends = (4, 4, side + 7, side + 7)
    ImageDraw.Draw(plane).ellipse(ends, outline=110, width=max(1, side // 20))
    ring = np.asarray(plane) / np.float32(255)
    top, left = ((n - m) // 2 for n, m in zip(ring.shape, ink.shape, strict=True))
    there = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
    ring[there] = np.maximum(ring[there], ink)
    return ring


def _colours(part: Array) -> Array:
    """Return a bar of colours, from blue to red, as wide as a part."""
    rows, columns = part.shape[:2]
    hues = Image.new("HSV", (columns, 1))
    hues.putdata([(170 - 170 * n // columns, 255, 230) for n in range(columns)])
    return np.repeat(np.asarray(hues.convert("RGB")), rows // 3, axis=0)


def _panel(part: Array) -> Array:
    """Return a bright panel with a frame; ink on it is dark."""
    panel = np.full_like(part, 232)
    panel[[2, -3], 2:-2] = panel[2:-2, [2, -3]] = 90
    return panel


def _touching(scene: Scene, number: int) -> Scene:
    """Return the part of a scene of which one border touches the ink of a line."""
    if not scene.lines:
        return scene
    line = scene.lines[0]
    rows, columns = (np.flatnonzero(line.ink.any(axis=n)) for n in (1, 0))
    whole = Box(0, 0, *scene.image.shape[:2])
    box = line.box
    part = dataclasses.replace(
        whole,
        **[
            {"top": box.top + int(rows[0])},
            {"left": box.left + int(columns[0])},
            {"bottom": box.top + int(rows[-1]) + 1},
            {"right": box.left + int(columns[-1]) + 1},
        ][number % 4],
    )
    return Scene(_cut(scene.image, part), (_moved(line, part),))


def _cut(values: Array, box: Box) -> Array:
    return values[box.top : box.bottom, box.left : box.right]


def _moved(line: Line, part: Box) -> Line:
    """Return a line as it lies in a part of the image."""
    box = line.box
    inside = Box(
        max(box.top, part.top) - box.top,
        max(box.left, part.left) - box.left,
        min(box.bottom, part.bottom) - box.top,
        min(box.right, part.right) - box.left,
    )
    top, left = box.top - part.top + inside.top, box.left - part.left + inside.left
    ink = _cut(line.ink, inside)
    moved = Box(top, left, top + ink.shape[0], left + ink.shape[1])
    return dataclasses.replace(line, ink=ink, box=moved)


_TURNED = ("plain", "outlined", "boxed", "shadow")
STRATA = {
    "turned by 90": Stratum(ink=np.rot90, styles=_TURNED),
    "turned by 180": Stratum(ink=partial(np.rot90, k=2), styles=_TURNED),
    "turned by 270": Stratum(ink=partial(np.rot90, k=3), styles=_TURNED),
    "mirrored": Stratum(ink=np.fliplr, styles=_TURNED),
    "marks": Stratum(texts=MARKS),
    "marks, mirrored": Stratum(texts=MARKS, ink=np.fliplr),
    "marks in a ring": Stratum(texts=MARKS[:3], ink=_in_ring, styles=("plain",)),
    "over 1/4 of the image": Stratum(
        texts=MARKS, sizes=(96, 128, 160), side=320, lines_each=1
    ),
    "images below 90 pixels": Stratum(
        texts=(*MARKS, "12:30", "ID 42", "Doe J."), sizes=(8, 10, 12), side=80
    ),
    "Cyrillic": Stratum(
        texts=CYRILLIC, fonts=(("DejaVuSans",), ("DejaVuSerif", "DejaVuSansMono"))
    ),
    "Arabic": Stratum(
        texts=ARABIC, fonts=(("DejaVuSans",), ("KacstBook.ttf", "KacstOffice.ttf"))
    ),
    "Chinese, Japanese, Korean": Stratum(
        texts=CJK, fonts=(("DroidSansFallbackFull.ttf",), ("wqy-microhei.ttc",))
    ),
    "as if by hand": Stratum(fonts=(("Humor-Sans.ttf",), ("dkg.ttf", "dkgBd.ttf"))),
    "outline only": Stratum(ink=_outline, sizes=(20, 28, 40), styles=("plain",)),
    "on colours": Stratum(ground=_colours, side=480),
    "dark on a panel": Stratum(ground=_panel, styles=("plain",)),
    "cut by the border": Stratum(cut=_touching, lines_each=1),
}


def scenes(stratum: Stratum, n_lines: int, *, held_back: bool) -> Iterator[Scene]:
    """Yield scenes that together hold at least so many lines of a kind.

    Nothing where one of its fonts is not installed.
    """
    fields = burned.backgrounds(held_back=held_back)
    fonts = (stratum.fonts or (burned.TUNED_FONTS, burned.HELD_BACK_FONTS))[held_back]
    chance = np.random.default_rng([n_lines, held_back])
    if not all(map(is_installed, fonts)):
        return
    drawn = number = 0
    while drawn < n_lines:
        field = _part(fields[number % len(fields)], stratum, chance)
        canvas = Canvas(field, chance)
        for _ in range(stratum.lines_each):
            _draw(canvas, stratum, fonts, chance)
        scene = canvas.scene()
        scene = stratum.cut(scene, number) if stratum.cut else scene
        number, drawn = number + 1, drawn + len(scene.lines)
        if scene.lines:
            yield scene


def is_installed(font: str) -> bool:
    """Tell whether a font is there."""
    try:
        burned.text_mask("R", font, 12, sharp=False)
    except OSError:
        return False
    return True


def _part(field: Field, stratum: Stratum, chance: np.random.Generator) -> Field:
    """Return a square part of a background, as it is displayed."""
    shown = field.shown()
    rooms = [max(1, n - stratum.side + 1) for n in shown.shape[:2]]
    top, left = (int(chance.integers(room)) for room in rooms)
    part = shown[top : top + stratum.side, left : left + stratum.side]
    return Field(stratum.ground(part).astype(np.float32), 0, 255, 255)


def _draw(
    canvas: Canvas,
    stratum: Stratum,
    fonts: tuple[str, ...],
    chance: np.random.Generator,
) -> None:
    def one_of(choices: tuple[Any, ...]) -> Any:
        return choices[int(chance.integers(len(choices)))]

    text, font, size = one_of(stratum.texts), one_of(fonts), one_of(stratum.sizes)
    ink = stratum.ink(burned.text_mask(text, font, size, sharp=False))
    place = one_of(burned.PLACES)
    style = one_of(stratum.styles)
    canvas.put(ink, text=text, font=font, size=size, style=style, place=place)
