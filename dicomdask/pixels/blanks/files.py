"""Blank boxes in the pixels of a data set, in the transfer syntax that it has.

What a box does not touch keeps its decoded values, and frames without boxes keep their
bytes. Uncompressed pixels change in place. Of sequential JPEG only the units that a box
touches are coded anew; other compressed frames are, as a whole and without loss, from
what was decoded. Whatever comes out is decoded again and compared before it is passed.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom import DataElement
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
)

from dicomdask.errors import InputError
from dicomdask.model import Box
from dicomdask.pixels.blanks.dct import (
    blank_jpeg,
    coefficients,
    levels,
    pixels_of,
    read_frame,
    smoothed,
    touched_units,
)
from dicomdask.pixels.blanks.native import Place, blank_native
from dicomdask.pixels.blanks.recode import deflated, inflated, recode, to_lossless
from dicomdask.pixels.blanks.rule import mask_of, stored_blank, widened
from dicomdask.pixels.codecs import DEFLATED_FRAMES, find_decoder
from dicomdask.pixels.form import FLOATS
from dicomdask.pixels.frames import FrameDecoder

Array = np.ndarray[Any, np.dtype[Any]]
Numbers = tuple[int, ...]

_DCT: Final = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
_PHOTOMETRIC: Final = Tag(0x00280004)
_OFFSETS: Final = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


@dataclass(frozen=True, slots=True)
class Blanked:
    """A data set whose pixels have been blanked.

    Attributes
    ----------
    dataset
        A copy with other pixels, in the same transfer syntax, and the header that
        follows from them: an offset table agrees, and what was coded with loss and
        with its colours transformed (YBR_ICT) is YBR_RCT.
    changed
        The frames that hold other pixels, from 0.
    recoded
        Those that were encoded anew as a whole, without loss.
    """

    dataset: FileDataset
    changed: tuple[int, ...] = ()
    recoded: tuple[int, ...] = ()


def blank_frames(
    dataset: FileDataset, boxes: Sequence[Sequence[Box] | Array]
) -> Blanked:
    """Return a data set with boxes of its frames blank, and all else as it was.

    Parameters
    ----------
    dataset
        A whole file as `header.read_dataset` reads it; it is not changed.
    boxes
        Those of each frame, or a mask of its pixels; a frame without any keeps its
        bytes.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` where the transfer syntax or the form of the
        pixels does not allow it, an encoder fails, or something else comes out than
        was wanted; with the codes of `FrameDecoder` where pixels cannot be decoded.
    """
    found = _blanked_or_error(dataset, boxes)
    if isinstance(found, InputError):
        raise InputError(found.code, found.reason)  # has no context
    return found


def _blanked_or_error(
    dataset: FileDataset, boxes: Sequence[Sequence[Box] | Array]
) -> Blanked | InputError:
    try:
        return _blank(dataset, boxes)
    except InputError as error:
        return error
    except Exception:  # noqa: BLE001 -- encoders raise anything
        return InputError("unclean-pixels")


def _blank(dataset: FileDataset, boxes: Sequence[Sequence[Box] | Array]) -> Blanked:
    read = _copy(dataset)  # whose raw elements are no longer raw once they are read
    frames = FrameDecoder(read)
    if len(boxes) != len(frames):
        raise InputError("unclean-pixels")
    shape = frames.form.rows, frames.form.columns
    changed = tuple(n for n, some in enumerate(boxes) if mask_of(shape, some).any())
    if not changed:
        return Blanked(dataset)
    editor = _Editor(read, frames, boxes)
    blank = editor.blank_packed if _is_packed(read) else editor.blank_native
    value, recoded = blank(changed)
    copied = _with_pixels(dataset, read[frames.form.keyword], value)
    for keyword in _OFFSETS:
        if keyword in copied:
            del copied[keyword]
    if recoded and frames.form.photometric == "YBR_ICT":
        copied[_PHOTOMETRIC] = DataElement(_PHOTOMETRIC, "CS", "YBR_RCT")
    return Blanked(copied, changed, recoded)


def without_loss(dataset: FileDataset) -> FileDataset:
    """Return a grey sequential JPEG as JPEG lossless of what was decoded of it.

    So single pixels can be blanked in it. What the header says of lossy compression
    stays, as it stays true (PS3.3 section C.7.6.1.1.5).

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` where it is none, or something else comes out;
        with the codes of `FrameDecoder` where pixels cannot be decoded.
    """
    read = _copy(dataset)
    frames = FrameDecoder(read)
    form = frames.form
    if form.syntax not in _DCT or form.samples != 1:
        raise InputError("unclean-pixels")
    planes = [frames.samples(number) for number in range(len(frames))]
    streams = [
        to_lossless(plane, read_frame(frames.stream(number)).precision)
        for number, (plane, _) in enumerate(planes)
    ]
    element = read[form.keyword]
    copied = _with_pixels(dataset, element, encapsulate(streams, has_bot=True))
    copied.file_meta = deepcopy(dataset.file_meta)
    copied.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    for keyword in _OFFSETS:
        if keyword in copied:
            del copied[keyword]
    after = FrameDecoder(copied)
    for number, (plane, photometric) in enumerate(planes):
        found, told = after.samples(number)
        if told != photometric or not np.array_equal(found, plane):
            raise InputError("unclean-pixels")
    return copied


def _is_packed(dataset: FileDataset) -> bool:
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = find_decoder(syntax)
    return syntax == DEFLATED_FRAMES or (
        decoder is not None and decoder.is_encapsulated
    )


def _copy(dataset: FileDataset) -> FileDataset:
    """Return a shallow copy of a data set."""
    implicit, little = dataset.original_encoding
    copied = FileDataset(
        "",
        dict(dataset.items()),
        preamble=dataset.preamble,
        file_meta=dataset.file_meta,
        is_implicit_VR=bool(implicit),
        is_little_endian=bool(little),
    )
    copied.set_original_encoding(implicit, little, dataset.original_character_set)
    return copied


def _with_pixels(
    dataset: FileDataset, element: DataElement, value: bytes
) -> FileDataset:
    """Return a copy of a data set with other bytes in its pixel element."""
    copied = _copy(dataset)
    new = DataElement(element.tag, element.VR, value, already_converted=True)
    new.is_undefined_length = element.is_undefined_length
    copied[element.tag] = new
    return copied


@dataclass(frozen=True, slots=True)
class _Goal:
    """A frame before: `samples`; and what is to become of it: `value` in `inside`."""

    samples: Array
    photometric: str
    inside: Array
    value: Any

    @property
    def wanted(self) -> Array:
        """Return the samples that the frame is to have."""
        wanted = self.samples.copy()
        wanted[self.inside] = self.value
        return wanted


def _require(after: tuple[Array, str], goal: _Goal, wanted: Array, loose: Any) -> None:
    """Refuse samples that are not those wanted, except where `loose` lets them be."""
    found, photometric = after
    same = (found == wanted) | ((found != found) & (wanted != wanted)) | loose
    if photometric != goal.photometric or not same.all():
        raise InputError("unclean-pixels")


class _Editor:
    """Blank the frames of one data set."""

    def __init__(
        self,
        dataset: FileDataset,
        frames: FrameDecoder,
        boxes: Sequence[Sequence[Box] | Array],
    ) -> None:
        self._dataset, self._frames, self._boxes = dataset, frames, boxes
        self._form = form = frames.form
        high = dataset.get("HighBit")
        # PS3.5 section 8.1.1: anything else is retired, and readers disagree about it.
        if form.keyword not in FLOATS and high not in {None, form.stored - 1}:
            raise InputError("unclean-pixels")

    def blank_native(self, changed: Numbers) -> tuple[bytes, Numbers]:
        """Return the pixels in the order of bytes they had, and no recoded frames."""
        form, element = self._form, self._dataset[self._form.keyword]
        is_big = form.syntax == ExplicitVRBigEndian
        words = is_big and form.allocated == 8 and element.VR == "OW"
        data = bytearray(element.value)
        for number in changed:
            goal = self._goal(number)
            place = Place(form, number, order=">" if is_big else "<", words=words)
            blank_native(data, place, goal.inside, goal.value)
        after = FrameDecoder(_with_pixels(self._dataset, element, bytes(data)))
        for number in changed:
            self._check(self._goal(number), after.samples(number))
        return bytes(data), ()

    def blank_packed(self, changed: Numbers) -> tuple[bytes, Numbers]:
        """Return encapsulated frames, and which of them were encoded anew."""
        form, frames = self._form, self._frames
        # PS3.5 section 8.2.4: YBR_ICT is with loss, and all frames are told the same.
        is_ict = form.photometric == "YBR_ICT"
        edited = tuple(range(len(frames))) if is_ict else changed
        streams = [frames.stream(number) for number in range(len(frames))]
        edit = self._edit()
        for number in edited:
            streams[number] = edit(streams[number], self._goal(number))
        recoded = () if form.syntax in _DCT else edited
        return encapsulate(streams, has_bot=True), recoded

    def _edit(self) -> Callable[[bytes, _Goal], bytes]:
        if self._form.syntax in _DCT:
            return self._edit_dct
        is_deflated = self._form.syntax == DEFLATED_FRAMES
        return self._edit_deflated if is_deflated else self._recode

    def _goal(self, number: int) -> _Goal:
        samples, photometric = self._frames.samples(number)
        form, boxes = self._form, self._boxes[number]
        inside = mask_of((form.rows, form.columns), boxes)
        value = stored_blank(samples, inside, photometric, form.stored, self._dataset)
        return _Goal(samples, photometric, inside, value)

    def _edit_deflated(self, old: bytes, goal: _Goal) -> bytes:
        data = inflated(self._form, old)
        blank_native(data, Place(self._form, 0), goal.inside, goal.value)
        new = deflated(bytes(data))
        self._check(goal, self._again(new))
        return new

    def _recode(self, old: bytes, goal: _Goal) -> bytes:
        new = recode(self._form, old, goal.wanted)
        self._check(goal, self._again(new))
        return new

    def _again(self, new: bytes) -> tuple[Array, str]:
        try:
            return self._frames.samples_of(new)
        except InputError:
            raise InputError("unclean-pixels") from None

    def _check(self, goal: _Goal, after: tuple[Array, str]) -> None:
        loose = np.zeros(goal.samples.shape, bool)
        if goal.photometric.endswith("_422"):  # pairs of pixels share their chroma
            loose[..., 1:] = widened(goal.inside, 1)[..., np.newaxis]
        _require(after, goal, goal.wanted, loose)

    def _edit_dct(self, old: bytes, goal: _Goal) -> bytes:
        jpeg, form = read_frame(old), self._form
        shape = jpeg.rows, jpeg.columns, len(jpeg.components)
        if shape != (form.rows, form.columns, form.samples) or form.signed:
            raise InputError("unclean-pixels")
        touched = touched_units(jpeg, goal.inside)
        values = np.broadcast_to(goal.value, form.samples)
        dc = coefficients(jpeg, values.tolist(), up=goal.photometric == "MONOCHROME1")
        new = blank_jpeg(old, touched, dc)
        found, photometric = self._again(new)
        after = found.reshape(shape)
        wanted = goal.samples.reshape(shape).copy()
        pixels = pixels_of(jpeg, touched)
        darkest = np.array(levels(jpeg, dc))
        wanted[pixels] = np.round(darkest)
        loose = pixels[..., np.newaxis] & (np.abs(after - darkest) <= 1)
        loose |= smoothed(jpeg, pixels)
        _require((after, photometric), goal, wanted, loose)
        return new
