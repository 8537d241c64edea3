"""What splitting a series gives: stacks of frames, and refusals."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from dicomdask.frames import Frame
from dicomdask.model import Instance

CROSS_SECTIONAL: Final = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose frames are slices placed in space; others are projections."""

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
RECONSTRUCTED: Final = frozenset(
    _STORAGE + end for end in ("13.1.1", "13.1.2", "13.1.3", "30")
)
"""Classes of slices of whatever modality: X-ray 3D, breast tomosynthesis, maps."""
PROJECTIONS: Final = frozenset(_STORAGE + end for end in ("13.1.4", "13.1.5"))
"""Classes of the projections that tomosynthesis reconstructs from."""


def is_cross_sectional(instance: Instance) -> bool:
    """Return whether an instance shows slices, which have a place in space."""
    return (
        instance.modality in CROSS_SECTIONAL or instance.sop_class_uid in RECONSTRUCTED
    )


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames on a grid of (t, z); `split` are the values that set it apart.

    `missing` are numbers along z that the grid leaves out: its frames fill the others.
    """

    grid: tuple[tuple[Frame, ...], ...]
    split: tuple[str, ...]
    axis_keyword: str | None = None
    axis_values: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    placed: bool = True
    uniform: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def n_slices(self) -> int:
        """How many slices there are along z, missing ones included."""
        return len(self.grid[0]) + len(self.missing)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All frames, t before z."""
        return tuple(frame for row in self.grid for frame in row)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances of all frames, each once, in the order of the frames."""
        return instances_of(self.frames)

    def warn(self, warning: str) -> "Stack":
        """Return the stack with one more warning."""
        return replace(self, warnings=(*self.warnings, warning))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Instances whose frames do not make a stack, and why."""

    instances: tuple[Instance, ...]
    code: str
    reason: str | None = None


def refuse(frames: Iterable[Frame], code: str, reason: str | None = None) -> Refusal:
    """Return the refusal of the instances of some frames."""
    return Refusal(instances_of(frames), code, reason)


def instances_of(frames: Iterable[Frame]) -> tuple[Instance, ...]:
    """Return the instances of some frames, each once."""
    return tuple({frame.instance.url: frame.instance for frame in frames}.values())
