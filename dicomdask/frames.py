"""Frames: what the header says of each plane, for splitting and placing them.

A single-frame instance is the case of one frame: its facts are the instance's own.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from dicomdask.model import Instance


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What may differ from frame to frame (identified).

    Fields are named as those of `Instance` and mean the same; in a multi-frame object
    they come from the functional groups (PS3.3 C.7.6.16).
    `frame_number` counts from 1, as in DICOM.
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
    rescale_slope: float | None = None
    rescale_intercept: float | None = None


OF_INSTANCE = tuple(
    field.name
    for field in dataclasses.fields(FrameFacts)
    if field.name != "frame_number"
)
"""The facts that a single-frame instance tells by fields of the same name."""


@dataclass(frozen=True)
class Frame:
    """One frame of an instance: what is split, ordered and placed."""

    instance: Instance
    facts: FrameFacts

    @property
    def number(self) -> int:
        """Return which frame of its instance it is, from 0."""
        return self.facts.frame_number - 1

    @property
    def is_only(self) -> bool:
        """Return whether its instance has no other."""
        return self.instance.number_of_frames == 1

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.instance.shape


def frames_of(instance: Instance) -> tuple[Frame, ...]:
    """Return the frames of an instance, in their order in the file."""
    facts = FrameFacts(**{name: getattr(instance, name) for name in OF_INSTANCE})
    return (Frame(instance, facts),)
