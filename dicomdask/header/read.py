"""Read a header into an `Instance`: strict about structure, lenient about values.

The header is walked element by element, by a parser of our own (PS3.5 section 7) that
keeps some fifty values and skips the rest; it stops in front of the pixels. Nothing of
a file ever enters a message.
"""

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from itertools import accumulate
from typing import Any, BinaryIO, Final

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from dicomdask.errors import InputError
from dicomdask.frames import pack
from dicomdask.header import groups, mosaic, nuclear
from dicomdask.header.elements import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    Prefix,
    Syntax,
    find_elements,
    find_meta,
    guess_syntax,
    inflated,
    is_implicit,
)
from dicomdask.header.plain import read_plain
from dicomdask.header.values import CHARACTER_SET, TAGS, UIDS, WHOLE_TEXT, Header
from dicomdask.limits import MAX_HEADER_BYTES
from dicomdask.model import Instance, SourceFile

MAX_INFLATED_BYTES: Final = 1 << 30
"""A deflated data set that inflates to more is refused."""

PIXEL_DATA: Final = 0x7FE00010
_PIXELS: Final = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_META_CLASS, _META_SYNTAX = 0x00020002, 0x00020010
_DIRECTORY = 0x00041220
_MODALITY_LUT, _SPECTRUM = 0x00283000, 0x56000020
_DICOMDIR_CLASS: Final = b"1.2.840.10008.1.3.10"
# PS3.5 sections A.5, A.7 and A.11: the data set itself is deflated.
_DEFLATED: Final = {
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
}
_WANTED: Final = frozenset(
    (
        *_PIXELS,
        *(*TAGS.values(), _META_CLASS, _META_SYNTAX, CHARACTER_SET),
        *(_DIRECTORY, _MODALITY_LUT, _SPECTRUM, *groups.WANTED, *mosaic.WANTED),
        *nuclear.WANTED,
    )
)
_UID: Final = re.compile(r"[0-2](\.\d+)+")
_ARCHIVES: Final = (
    *(b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"BZh"),
    *(b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"Rar!\x1a\x07"),
)
_HOSTILE: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error),
    *(BytesLengthException, InvalidDicomError),
)


def read_instance(
    file: BinaryIO, source: SourceFile, *, limit: int = MAX_HEADER_BYTES
) -> Instance:
    r"""Read a header, up to the pixels, into an `Instance`.

    Values are read leniently. An absent or empty one is `None` or ``()``; of several
    where one is wanted the first counts (`patient_id` and its issuer keep them all,
    with ``\``); a number that cannot be read is NaN, or `None` for a whole number.
    `header_digest` is that of all bytes in front of the pixels, inflated ones where
    they were deflated.

    Parameters
    ----------
    file
        A seekable stream over the object; only the header is read.
    source
        Where it comes from.
    limit
        The most bytes that the header may have.

    Raises
    ------
    InputError
        With the code ``empty-file``, ``archive``, ``not-dicom``, ``bad-header``,
        ``too-large``, ``dicomdir``, ``no-pixels`` or ``missing-uid``.
    """
    file.seek(0)
    header = Header(Prefix(file, limit, source.size or None))
    start = _dataset_start(header.prefix)
    syntax, keyword, stop = _try_parse(header, start)
    values = header.values()
    _refuse_without_pixels(header, values, keyword)
    if not all(values[field] for field in UIDS):
        raise InputError("missing-uid")
    n_frames = header.n_frames()
    columns = groups.read_columns(header, n_frames)
    columns = columns or nuclear.read_vectors(header, values, n_frames)
    is_mosaic = "MOSAIC" in values["image_type"] and n_frames == 1 and not columns
    if is_mosaic:
        columns = mosaic.read_tiles(header, values)
    values |= {
        "url": source.url,
        "size": source.size,
        "token": source.token,
        "etag": source.etag,
        "header_digest": _digest(header.prefix.data, stop),
        "transfer_syntax_uid": syntax,
        "number_of_frames": n_frames,
        "frame_facts": pack(columns),
        "pixel_keyword": keyword,
        "has_modality_lut": header.has_items(_MODALITY_LUT),
        "is_mosaic": is_mosaic,
        "header_bytes": stop,
    }
    return _make_instance(values)


_PUT: Final = tuple(
    (field.name, getattr(Instance, field.name).__set__) for field in fields(Instance)
)


def _make_instance(values: dict[str, Any]) -> Instance:
    """Do what the constructor does, which looks up each of so many fields twice."""
    instance = Instance.__new__(Instance)
    for name, put in _PUT:
        put(instance, values[name])
    return instance


def read_patient(file: BinaryIO) -> tuple[str | None, str | None, str]:
    """Return whose a file is, whether or not it is an image or whole.

    Returns
    -------
    tuple
        PatientID and its issuer, all their values, and the Study Instance UID; None
        and empty where the header does not say.

    Raises
    ------
    InputError
        If it cannot be DICOM.
    """
    file.seek(0)
    header = Header(Prefix(file))
    start = _dataset_start(header.prefix)
    with suppress(InputError, ValueError, struct.error, zlib.error):
        _parse(header, start)
    number, issuer = (header.whole_text(TAGS[field]) for field in WHOLE_TEXT)
    return number, issuer, header.text(TAGS["study_instance_uid"]) or ""


def read_dataset(
    data: bytes, *, limit: int = MAX_INFLATED_BYTES
) -> pydicom.dataset.FileDataset:
    """Read a whole file that `read_instance` accepted, pixels and all.

    A missing Transfer Syntax UID is set to the one that the elements are written in.

    Parameters
    ----------
    data
        The bytes of the file.
    limit
        The most bytes a deflated data set may inflate to.

    Raises
    ------
    InputError
        With the code ``empty-file``, ``archive``, ``not-dicom``, ``bad-header``,
        ``truncated`` or ``too-large``.
    """
    try:
        plain = read_plain(data)
        if plain is not None:
            return plain
        _refuse_bomb(data, limit)
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        # pydicom leaves out everything where compressed pixels lack their end.
        if len(dataset) == 0:
            raise InputError("truncated")
        _say_syntax(dataset)
    except InputError:
        raise
    except _HOSTILE:
        raise InputError("bad-header") from None
    return dataset


def frame_times(dataset: pydicom.Dataset) -> Callable[[int], float | None]:
    """Return a function from the number of a frame to its time in ms, or None.

    PS3.3 sections C.7.6.5: Frame Time is constant, Frame Time Vector has the time since
    the frame before for each. The first frame is at 0.
    """
    try:
        steps = [float(step) for step in dataset.get("FrameTimeVector") or ()]
        step = dataset.get("FrameTime")
        every = None if step in (None, "") else float(step)
    except _HOSTILE:
        return lambda _: None
    if steps:
        times = list(accumulate([0.0, *steps[1:]]))
        return lambda frame: times[frame] if frame < len(times) else None
    return lambda frame: None if every is None else frame * every


def _say_syntax(dataset: pydicom.dataset.FileDataset) -> None:
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = EXPLICIT if little else BIG_ENDIAN
        uid = pydicom.uid.UID(IMPLICIT if implicit else explicit)
        dataset.file_meta.TransferSyntaxUID = uid


def read_piece(head: bytes, body: bytes, n: int) -> pydicom.dataset.FileDataset:
    """Return the data set of some frames of a file, as if it held no others.

    Parameters
    ----------
    head
        The bytes of the file up to its pixels, which are not compressed.
    body
        The pixels of the frames.
    n
        How many frames they are.

    Raises
    ------
    InputError
        With the code ``bad-header``.
    """
    try:
        stream = io.BytesIO(head)
        dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
        _say_syntax(dataset)
        dataset.NumberOfFrames = n
        vr = "OB" if dataset.BitsAllocated <= 8 else "OW"
        dataset.add_new(PIXEL_DATA, vr, body)
    except _HOSTILE:
        raise InputError("bad-header") from None
    return dataset


def _refuse_bomb(data: bytes, limit: int) -> None:
    """Refuse a data set that inflates to more than `limit` bytes."""
    file = io.BytesIO(data)
    header = Header(Prefix(file))
    start = find_meta(header.prefix, _dataset_start(header.prefix), header.elements)
    if header.text(_META_SYNTAX) in _DEFLATED:
        n = 0
        for block in inflated(file, start):
            n += len(block)
            if n > limit:
                raise InputError("too-large", "The inflated data set is too large.")


def _dataset_start(prefix: Prefix) -> int:
    """Return where the first element is; refuse what cannot be DICOM."""
    if not prefix.reach(1):
        raise InputError("empty-file")
    # PS3.10 section 7.1: the preamble may be another format's start, so DICM wins.
    if prefix.reach(132) and prefix.data[128:132] == b"DICM":
        return 132
    prefix.reach(512)
    if _is_nifti(prefix.data):
        raise InputError("not-dicom")
    if prefix.data.startswith(_ARCHIVES) or prefix.data[257:262] == b"ustar":
        raise InputError("archive")
    if not _starts_plausibly(prefix.data):
        raise InputError("not-dicom")
    return 0


def _is_nifti(data: bytearray) -> bool:
    """Tell a gzipped NIfTI, which is no archive of DICOM, by the magic inside."""
    if not data.startswith(b"\x1f\x8b"):
        return False
    try:
        head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, 512)
    except zlib.error:
        return False
    return head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:7] == b"n+2"


def _starts_plausibly(data: bytearray) -> bool:
    """Tell whether a file without preamble may start with an element of ours."""
    if len(data) < 8:
        return False
    little, big = struct.unpack_from("<H", data)[0], struct.unpack_from(">H", data)[0]
    if not is_implicit(data, 0):
        return little in {2, 8} or big == 8
    return bool(little == 8 and struct.unpack_from("<I", data, 4)[0] < 1 << 16)


def _try_parse(header: Header, start: int) -> tuple[str, str | None, int]:
    """Parse; refuse what is damaged, and what has no preamble and no SOP class."""
    failure = None
    try:
        result = _parse(header, start)
    except InputError as error:
        failure = error
    except (ValueError, struct.error, zlib.error):
        failure = InputError("bad-header")
    if start == 0:
        uid = header.text(TAGS["sop_class_uid"])
        if uid is None or not _UID.fullmatch(uid):
            raise InputError("not-dicom")
    if failure is not None:
        raise InputError(failure.code, failure.reason)
    return result


def _refuse_without_pixels(
    header: Header, values: dict[str, Any], keyword: str | None
) -> None:
    """Refuse a DICOMDIR, and an object that is no image."""
    meta_class = (header.raw(_META_CLASS) or b"").partition(b"\\")[0]
    if meta_class.strip(b" \0") == _DICOMDIR_CLASS or _DIRECTORY in header.elements:
        raise InputError("dicomdir")
    if keyword or (values["rows"] and _SPECTRUM not in header.elements):
        return
    # An image that ends before its pixels is damaged, not an object without them.
    uid = values["sop_class_uid"] or header.text(_META_CLASS)
    if uid is None:
        raise InputError("missing-uid")
    name = pydicom.uid.UID(uid, validation_mode=pydicom.config.IGNORE).name
    raise InputError("missing-pixels" if "Image Storage" in name else "no-pixels")


def _parse(header: Header, start: int) -> tuple[str, str | None, int]:
    """Read the elements; return transfer syntax, pixel keyword and where it stopped."""
    prefix = header.prefix
    start = find_meta(prefix, start, header.elements)
    uid = header.text(_META_SYNTAX)
    if uid in _DEFLATED:
        prefix.inflate(start)
    prefix.reach(start + 8)
    uid = uid or guess_syntax(prefix.data, start)
    header.endian = ">" if uid == BIG_ENDIAN else "<"
    syntax = Syntax(header.endian, is_implicit(prefix.data, start))
    header.syntax = syntax
    last = find_elements(prefix, start, syntax, _WANTED, _PIXELS, header.elements)
    if last is None:
        return uid, None, len(prefix.data)
    return uid, _PIXELS[last.tag], last.start


def _digest(data: bytearray, stop: int) -> str:
    """Return the hex BLAKE2b-128 of the first `stop` bytes."""
    return hashlib.blake2b(memoryview(data)[:stop], digest_size=16).hexdigest()
