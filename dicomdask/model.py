"""The nouns: frozen values that travel between the rooms.

Fields that are DICOM attributes carry the attribute's keyword in snake case; missing is
`None`, never `""` or `-1`. `SourceFile`, `Instance`, `PlannedFrame` and `PlannedVolume`
are identified: they live in one process and in the *work* directory only.
"""

from dataclasses import dataclass
from math import prod
from typing import Final, Literal

import numpy as np

FORMAT: Final = 1
"""The format of a dataset, a plan and a receipt; another number is refused by name."""

Stage = Literal["list", "index", "resolve", "plan", "encode"]
Kind = Literal["volume", "timeseries", "projection", "cine", "slide", "secondary"]
Profile = Literal["slice", "balanced", "patch"]
Codec = Literal["none", "lz4", "zstd"]
Way = Literal["rule", "region", "detector"]
"""How text in the pixels was found: a device's rule, ultrasound regions, a detector."""
Look = Literal["none", "not-needed", "trusted", "person", "detector"]
"""Who looked for text in the pixels of an instance: nobody, since no policy wants it;
nobody, since the policy's rules or the user's trust let it pass; a person, as a rule
for the device says; or a detector."""
Faces = Literal["none", "possible", "cleaned"]
"""Whether a volume may show a face; `cleaned`: it did, and the face is gone."""
Irregular = Literal["split", "pad", "reject"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One listed file.

    `etag` tells two states of one URL apart; `token` is empty for the first state that
    was seen and the etag for later ones, so that a copied pile gives the same dataset.
    """

    url: str
    size: int
    etag: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP Instance as read from its header (identified).

    `etag` is that of the listing; it decides no name and no digest, so that a copied
    pile gives the same dataset.
    `header_bytes` is how much there is in front of the pixels, inflated.
    `frame_facts` is what differs from frame to frame, packed; see `frames`.
    """

    url: str
    size: int
    token: str
    header_digest: str
    patient_id: str | None
    issuer_of_patient_id: str | None
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str | None
    image_type: tuple[str, ...]
    conversion_type: str | None
    burned_in_annotation: str | None
    instance_number: int | None
    acquisition_number: int | None
    images_in_acquisition: int | None
    frame_of_reference_uid: str | None
    number_of_frames: int
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    photometric_interpretation: str | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    pixel_representation: int | None
    pixel_keyword: str | None
    pixel_spacing: tuple[float, ...]
    imager_pixel_spacing: tuple[float, ...]
    image_position_patient: tuple[float, ...]
    image_orientation_patient: tuple[float, ...]
    slice_thickness: float | None
    spacing_between_slices: float | None
    gantry_detector_tilt: float | None
    convolution_kernel: tuple[str, ...]
    echo_numbers: int | None
    echo_time: float | None
    repetition_time: float | None
    inversion_time: float | None
    flip_angle: float | None
    diffusion_b_value: float | None
    diffusion_gradient_orientation: tuple[float, ...]
    temporal_position_identifier: int | None
    acquisition_time: str | None
    content_time: str | None
    trigger_time: float | None
    stack_id: str | None
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str | None
    units: str | None
    pixel_padding_value: int | None
    pixel_padding_range_limit: int | None
    has_modality_lut: bool
    is_mosaic: bool
    etag: str = ""
    header_bytes: int = 0
    red_palette_color_lookup_table_descriptor: tuple[float, ...] = ()
    frame_facts: bytes = b""
    frame_time: float | None = None
    float_pixel_padding_value: float | None = None
    float_pixel_padding_range_limit: float | None = None
    double_float_pixel_padding_value: float | None = None
    double_float_pixel_padding_range_limit: float | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    body_part_examined: str | None = None
    series_description: str | None = None
    study_date: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame; (0, 0) where the header does not say."""
        return (self.rows or 0, self.columns or 0)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the stored values of a frame mean (de-identified: numbers only).

    `slope` and `intercept` are None where a Modality LUT takes their place. The texts
    are those of `values.lut_text`, `values.Display.to_text` and of `pixels`.
    """

    slope: float | None
    intercept: float | None
    modality_lut: str | None = None
    display: str | None = None
    real_world_values: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows [top, bottom), columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        """Return how many pixels it holds."""
        return (self.bottom - self.top) * (self.right - self.left)

    def around(self, other: "Box") -> "Box":
        """Return the least box that holds this one and another."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


@dataclass(frozen=True, slots=True)
class Redaction:
    """One region that is blanked in the pixels of an instance.

    `frames` are the numbers of its frames, from 0. `score` is the detector's, from 0
    to 1; None where a rule or geometry says so. What was read there is never told.
    """

    box: Box
    frames: tuple[int, ...]
    way: Way
    score: float | None = None


@dataclass(frozen=True, slots=True)
class PatientStudy:
    """Whose study it is: some fields of an instance (identified)."""

    patient_id: str | None
    issuer_of_patient_id: str | None
    study_instance_uid: str


OWN_FIELDS: Final = frozenset(
    {
        "url",
        "size",
        "token",
        "etag",
        "header_digest",
        "header_bytes",
        "frame_facts",
        "pixel_keyword",
        "has_modality_lut",
        "is_mosaic",
    }
)
"""The fields of an instance that are no DICOM attributes."""


def column_name(field: str) -> str:
    """Return the column of an instance's field: a DICOM attribute's is its keyword.

    >>> column_name("series_instance_uid"), column_name("header_digest")
    ('SeriesInstanceUID', 'header_digest')
    """
    if field in OWN_FIELDS:
        return field
    acronyms = {"id": "ID", "uid": "UID", "sop": "SOP"}
    words = field.split("_")
    return "".join(acronyms.get(word, word.capitalize()) for word in words)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input (de-identified: holds a keyed digest of its URL)."""

    source_key: str
    outcome: Literal["stored", "duplicate", "skipped", "rejected"]
    stage: Stage
    code: str
    reason: str
    source_bytes: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user decided; the same for every run that extends one store.

    `patch_size` counts slices, rows and columns; None leaves the chunks to the profile.
    `policy_text` is what a policy file says; `policy` is its name then.
    """

    policy: str = "research"
    options: tuple[str, ...] = ()
    trusted_pixels: tuple[str, ...] = ()
    profile: Profile = "balanced"
    on_irregular: Irregular = "split"
    where: str | None = None
    patch_size: tuple[int, ...] | None = None
    codec: Codec = "lz4"
    policy_text: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array is cut. Shapes are in the array's own axis order."""

    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    codec: str


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """One frame of a planned volume (identified: holds the URL of its source).

    `index` is its place along the axes that tell frames apart: () for a single frame,
    (z,) for a volume, (t, z) for a time series. `position` is ImagePositionPatient in
    mm, LPS.
    `etag` is that of the listing, empty where it is not known. `tile` is which tile of
    a mosaic it is, from 0, row by row; None where it is none. `offset` is where its
    pixels start in the file; None where they cannot be read without those of others.
    """

    url: str
    size: int
    token: str
    frame: int
    index: tuple[int, ...]
    position: tuple[float, ...]
    source_key: str
    etag: str = ""
    offset: int | None = None
    tile: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedVolume:
    """One volume, decided: its frames in order, its geometry and its layout.

    `affine` is 4x4, row-major, in mm, LPS, from indices in axis order (empty where the
    geometry is unknown); `spacing_mm` has one value per spatial axis in axis order.
    `header_bytes` is the length of its longest header. `missing` are the numbers along
    z of slices that no frame fills. `look` says why nobody has to look for text in any
    of its frames; None: their headers tell. `references` are images of its series that
    are looked at for text as a whole; its own are compared with them.
    """

    volume_id: str
    revision: str
    series_key: str
    kind: Kind
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    dtype: str
    layout: Layout
    affine: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    uniform_spacing: bool
    tilt_degrees: float
    axis_keyword: str | None
    axis_values: tuple[str, ...]
    padding: tuple[float, ...]
    n_missing: int
    n_duplicates: int
    warnings: tuple[str, ...]
    frames: tuple[PlannedFrame, ...]
    header_bytes: int = 0
    missing: tuple[int, ...] = ()
    look: Look | None = None
    references: tuple[PlannedFrame, ...] = ()

    @property
    def path(self) -> str:
        """Return the path of the volume's group below the store."""
        return f"volumes/{self.volume_id[:2]}/{self.volume_id}/{self.revision}"

    @property
    def frame_axes(self) -> tuple[int, ...]:
        """Return the numbers of the axes that tell frames apart: those of t and z."""
        return tuple(n for n, axis in enumerate(self.dimensions) if axis in "tz")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of a frame: (rows, columns), or (3, rows, columns)."""
        return tuple(
            extent
            for axis, extent in zip(self.dimensions, self.shape, strict=True)
            if axis not in "tz"
        )

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of a decoded frame."""
        return prod(self.frame_shape) * np.dtype(self.dtype).itemsize

    @property
    def source_bytes(self) -> int:
        """Return the bytes of its files, each counted once."""
        return sum({frame.url: frame.size for frame in self.frames}.values())

    @property
    def fill_value(self) -> float:
        """Return what stands where a slice is missing: padding, or 0 without any."""
        return self.padding[0] if self.padding else 0

    @property
    def raw_bytes(self) -> int:
        """Return the bytes of the decoded array."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of encoding: the frames that fill one shard.

    `corner` is the shard's place in the grid of shards; `frames` indexes the volume's.
    """

    corner: tuple[int, ...]
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about an instance after its header was read (identified).

    The plan leaves the instance out and gives it this outcome.
    """

    url: str
    size: int
    token: str
    stage: Stage
    code: str
    reason: str
    etag: str = ""


@dataclass(frozen=True, slots=True)
class CommittedSeries:
    """One series as a commit holds it.

    `states` name its volumes and all that may change of them; `sources` and `sizes`
    are those of its stored files.
    """

    series_key: str
    states: tuple[str, ...]
    sources: tuple[str, ...]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """What was last committed of one bucket: its series, and inputs in none of them."""

    series: tuple[CommittedSeries, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record that a task is done; a few hundred bytes."""

    task: str
    part: str
    n_frames: int
    shard_bytes: int
    raw_bytes: int
    source_bytes: int
    seconds: float
