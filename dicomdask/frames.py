"""Frames: what the header says of each plane, for splitting and placing them.

A single-frame instance is the case of one frame: its facts are the instance's own. The
facts of many frames travel packed: a worker may hold thousands of instances.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, sqrt
from typing import Any

from dicomdask.model import Instance


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What may differ from frame to frame (identified).

    Fields are named as those of `Instance` and mean the same; in a multi-frame object
    they come from the functional groups (PS3.3 C.7.6.16).
    `frame_number` counts from 1, as in DICOM. `vectors` are the numbers that tell
    frames of nuclear medicine apart, in the vectors that `vector_keywords` name.
    """

    frame_number: int = 1
    image_type: tuple[str, ...] = ()
    pixel_spacing: tuple[float, ...] = ()
    image_position_patient: tuple[float, ...] = ()
    image_orientation_patient: tuple[float, ...] = ()
    slice_thickness: float | None = None
    convolution_kernel: tuple[str, ...] = ()
    instance_number: int | None = None
    acquisition_number: int | None = None
    echo_numbers: int | None = None
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    diffusion_b_value: float | None = None
    diffusion_gradient_orientation: tuple[float, ...] = ()
    temporal_position_identifier: int | None = None
    acquisition_time: str | None = None
    content_time: str | None = None
    trigger_time: float | None = None
    stack_id: str | None = None
    dimension_index_values: tuple[int, ...] = ()
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    vectors: tuple[int, ...] = ()
    vector_keywords: tuple[str, ...] = ()


OF_FRAMES = {
    *("frame_number", "dimension_index_values", "vectors", "vector_keywords"),
}
OF_INSTANCE = tuple(
    field.name
    for field in dataclasses.fields(FrameFacts)
    if field.name not in OF_FRAMES
)
"""The facts that a single-frame instance tells by fields of the same name."""


@dataclass(frozen=True)
class Frame:
    """One frame of an instance: what is split, ordered and placed.

    `tiles` is how many tiles a mosaic has along each side, 1 where it is none.
    """

    instance: Instance
    facts: FrameFacts
    tiles: int = 1

    @property
    def number(self) -> int:
        """Return which frame of its instance it is, from 0, also of each tile."""
        return 0 if self.instance.is_mosaic else self.facts.frame_number - 1

    @property
    def tile(self) -> int | None:
        """Return which tile of a mosaic it is, from 0 row by row; None elsewhere."""
        return self.facts.frame_number - 1 if self.instance.is_mosaic else None

    @property
    def is_told(self) -> bool:
        """Return whether the header tells its facts from those of other frames."""
        return self.is_only or bool(self.instance.frame_facts)

    @property
    def is_only(self) -> bool:
        """Return whether its instance has no other."""
        return self.instance.number_of_frames == 1 and not self.instance.is_mosaic

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; of a tile, not of the mosaic."""
        rows, columns = self.instance.shape
        return rows // self.tiles, columns // self.tiles


def frames_of(instance: Instance) -> tuple[Frame, ...]:
    """Return the frames of an instance, in their order in the file."""
    own = FrameFacts(**{name: getattr(instance, name) for name in OF_INSTANCE})
    if not instance.frame_facts:
        numbers = range(1, instance.number_of_frames + 1)
        return tuple(Frame(instance, replace(own, frame_number=n)) for n in numbers)
    seen: dict[Any, Any] = {}
    every = _unpack(instance.frame_facts, seen)
    tiles = ceil(sqrt(len(every))) if instance.is_mosaic else 1
    return tuple(
        Frame(instance, replace(own, frame_number=number, **told), tiles)
        for number, told in enumerate(every, 1)
    )


def pack(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Return facts as few bytes; what is the same for all frames stands once.

    Parameters
    ----------
    columns
        One sequence for each fact, with a value a frame; {} gives no bytes.
    """
    if not columns:
        return b""
    n = len(next(iter(columns.values())))
    each = {name: one for name, one in columns.items() if len(set(one)) > 1}
    same = {name: one[0] for name, one in columns.items() if name not in each}
    text = json.dumps({"n": n, "same": same, "each": each}, separators=(",", ":"))
    return zlib.compress(text.encode(), 6)


def _unpack(packed: bytes, seen: dict[Any, Any]) -> list[dict[str, Any]]:
    """Return what each frame tells: a value that is empty is not told."""
    document = json.loads(zlib.decompress(packed))
    same = _told(document["same"], seen)
    columns = document["each"].items()
    return [
        same | _told({name: column[k] for name, column in columns}, seen)
        for k in range(document["n"])
    ]


def _told(values: Mapping[str, Any], seen: dict[Any, Any]) -> dict[str, Any]:
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    told = ((k, v) for k, v in tuples.items() if v not in (None, ()))
    return {k: seen.setdefault((k, v), v) for k, v in told}
