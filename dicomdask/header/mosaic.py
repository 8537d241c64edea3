"""Siemens mosaics: the slices of a volume as tiles of one image, row by row.

How many they are and along which normal they follow each other stands in the private
CSA header. The position in the header is that of a tile's corner if the tile had the
size of the mosaic around its centre; the tile's own lies further in.
"""

import struct
from math import ceil, isfinite, sqrt
from typing import Any, Final

import numpy as np

from dicomdask.header.values import Header

CREATOR, CSA, TILES = 0x00290010, 0x00291010, 0x0019100A
WANTED: Final = (CREATOR, CSA, TILES)
MOST_TILES: Final = 1024
"""More tiles than any mosaic has."""

_TAG: Final = struct.Struct("<64si4siii")
_ITEM: Final = struct.Struct("<4i")


def read_tiles(header: Header, values: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the position of each tile, as columns of facts; {} if it is not known.

    Parameters
    ----------
    header
        A header that was parsed up to the pixels.
    values
        The fields of its instance.
    """
    csa = parse_csa(header.raw(CSA) or b"") if _is_siemens(header) else {}
    found = csa.get("NumberOfImagesInMosaic") or header.numbers_at(TILES, "US")
    spacing = values["spacing_between_slices"]
    normal = np.array(csa.get("SliceNormalVector", ()))
    numbers = (values["pixel_spacing"], values["image_position_patient"])
    cosines = values["image_orientation_patient"]
    lengths = [len(numbers[0]), len(numbers[1]), len(cosines), normal.size]
    if (
        lengths != [2, 3, 6, 3]
        or not found
        or not spacing
        or not 1 < found[0] <= MOST_TILES
    ):
        return {}
    n = int(found[0])
    side = ceil(sqrt(n))
    shape = values["rows"] or 0, values["columns"] or 0
    if shape[0] % side or shape[1] % side:
        return {}
    corner = _corner(*numbers, cosines, shape, side)
    step = normal / np.linalg.norm(normal) * abs(spacing)
    places = [tuple((corner + k * step).tolist()) for k in range(n)]
    if not all(isfinite(part) for place in places for part in place):
        return {}
    return {"image_position_patient": places}


def _corner(
    spacing: tuple[float, ...],
    position: tuple[float, ...],
    cosines: tuple[float, ...],
    shape: tuple[int, int],
    side: int,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return where the first pixel of the first tile lies, in mm."""
    row, column = np.reshape(cosines, (2, 3))
    down, right = (extent * (1 - 1 / side) / 2 for extent in shape)
    moved = position + column * down * spacing[0] + row * right * spacing[1]
    return np.asarray(moved, np.float64)


def _is_siemens(header: Header) -> bool:
    return (header.text(CREATOR) or "").startswith("SIEMENS CSA")


def parse_csa(data: bytes) -> dict[str, tuple[float, ...]]:
    """Return the numbers of a CSA header of the form SV10, by name.

    It is a list of named elements, each with items of text (no standard describes it).
    """
    if not data.startswith(b"SV10"):
        return {}
    found: dict[str, tuple[float, ...]] = {}
    try:
        (n_tags,) = struct.unpack_from("<I", data, 8)
        position = 16
        for _ in range(min(n_tags, 1024)):
            name, _, _, _, n_items, _ = _TAG.unpack_from(data, position)
            position += _TAG.size
            texts: list[bytes] = []
            for _ in range(min(n_items, 1024)):
                length = _ITEM.unpack_from(data, position)[1]
                position += _ITEM.size
                texts.append(data[position : position + length])
                position += -(-length // 4) * 4
            found[_plain(name)] = _numbers(texts)
    except struct.error:
        pass  # what was read stands
    return found


def _numbers(texts: list[bytes]) -> tuple[float, ...]:
    plain = [_plain(text) for text in texts]
    try:
        return tuple(float(text) for text in plain if text)
    except ValueError:
        return ()


def _plain(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("latin-1").strip()
