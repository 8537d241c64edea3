"""The elements of a data set as they lie in a file (PS3.5 section 7): a lazy walk."""

import struct
import zlib
from collections.abc import Callable, Container, Iterator
from typing import BinaryIO, Final, NamedTuple

from dicomdask.errors import InputError
from dicomdask.limits import MAX_HEADER_BYTES

UNDEFINED: Final = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

_FIRST: Final = 1 << 14
"""Nine of ten headers end before; then half as much again as is known to be needed, so
that few requests fetch little in vain."""
_LARGEST: Final = 1 << 22
"""No read is larger, so that little is held twice."""
_BLOCK: Final = 1 << 15
# PS3.5 section 7.1.2: two reserved bytes, then four bytes of length.
LONG_VRS: Final = frozenset(
    (
        *(b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ"),
        *(b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"),
    )
)
SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_HEADS: Final = {"<": struct.Struct("<HH2sH"), ">": struct.Struct(">HH2sH")}
_BARE_HEADS: Final = {"<": struct.Struct("<HHI"), ">": struct.Struct(">HHI")}
_LENGTHS: Final = {"<": struct.Struct("<I"), ">": struct.Struct(">I")}


class Syntax(NamedTuple):
    """How elements are written: the byte order, and without a VR or with one."""

    endian: str
    implicit: bool


_META: Final = Syntax("<", implicit=False)


class Element(NamedTuple):
    """An element: its VR where the file tells, and where its value lies."""

    tag: int
    vr: bytes | None
    start: int
    length: int


class Prefix:
    """The bytes of a file from its start, read as far as they were needed.

    Parameters
    ----------
    file
        A seekable stream.
    limit
        The most bytes to read.
    size
        How many bytes the file has, where that is known.
    """

    def __init__(
        self, file: BinaryIO, limit: int = MAX_HEADER_BYTES, size: int | None = None
    ) -> None:
        self.data = bytearray()
        self.limit = limit
        self._size = size
        self._file = file
        self._read: Callable[[int], bytes] = file.read

    def reach(self, stop: int) -> bool:
        """Read up to `stop`; return whether the file is that long."""
        if stop > self.limit:
            if self._size is not None and self._size <= self.limit:
                return False  # a length that is damaged, not a header that is large
            size = f"{self.limit >> 20} MiB"
            raise InputError("too-large", f"The header is larger than {size}.")
        while len(self.data) < stop:
            ahead = min(max(_FIRST, stop * 3 // 2), self.limit)
            block = self._read(min(ahead - len(self.data), _LARGEST))
            if not block:
                return False
            self.data += block
        return True

    def need(self, stop: int) -> None:
        """Read up to `stop`, or refuse a file that ends before."""
        if len(self.data) < stop and not self.reach(stop):
            raise InputError("bad-header")

    def inflate(self, start: int) -> None:
        """Let what follows `start` be what it inflates to."""
        del self.data[start:]
        self._size = None
        blocks = inflated(self._file, start)
        self._read = lambda _: next(blocks, b"")


def inflated(file: BinaryIO, start: int) -> Iterator[bytes]:
    """Yield what follows `start` inflated, 1 MiB at most at once."""
    file.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof and (
        packed := inflater.unconsumed_tail or file.read(_BLOCK)
    ):
        block = inflater.decompress(packed, 1 << 20)
        if block:
            yield block


def guess_syntax(data: bytearray, start: int) -> str:
    """Return the transfer syntax that the first element is written in."""
    if is_implicit(data, start):
        return IMPLICIT
    # 0008 in the other byte order is 0800; no file starts with so high a group.
    return BIG_ENDIAN if data[start : start + 1] == b"\0" else EXPLICIT


def is_implicit(data: bytes | bytearray, position: int) -> bool:
    """Tell whether an element has no VR; what the file says of it may be wrong."""
    vr = data[position + 4 : position + 6]
    return not (vr.isalpha() and vr.isupper())


def find_elements(
    prefix: Prefix,
    position: int,
    syntax: Syntax,
    wanted: Container[int],
    last: Container[int],
    found: dict[int, Element],
) -> Element | None:
    """Add the wanted elements of the top level to those that were found.

    Returns the first of the `last` ones, at which it stops; None at the end of the
    file. What most elements go through is written out here: a call for each would take
    as long as all else.
    """
    data, is_bare, new = prefix.data, syntax.implicit, tuple.__new__
    unpack = (_BARE_HEADS if is_bare else _HEADS)[syntax.endian].unpack_from
    vr: bytes | None = None
    while prefix.reach(position + 8):
        head = min(len(data), prefix.limit) - 8  # no head starts behind
        while position <= head:
            if is_bare:
                group, number, length = unpack(data, position)
                tag, position = group << 16 | number, position + 8
            else:
                group, number, vr, length = unpack(data, position)
                tag, position = group << 16 | number, position + 8
                if vr not in SHORT_VRS:
                    tag, vr, position, length = _element(prefix, position - 8, syntax)
            if tag in wanted:
                element = new(Element, (tag, vr, position, length))
                if tag in last:
                    return element
                found[tag] = element
            if length == UNDEFINED:
                position = _skip(prefix, position, syntax)
            else:
                position += length
        if position > len(data):
            prefix.need(position)
    return None


def find_meta(prefix: Prefix, position: int, found: dict[int, Element]) -> int:
    """Add the elements of group 0002 (PS3.10 section 7.1); return where they end."""
    data, unpack, new = prefix.data, _HEADS["<"].unpack_from, tuple.__new__
    while position + 8 <= len(data) or prefix.reach(position + 8):
        group, number, vr, length = unpack(data, position)
        start = position + 8
        if vr not in SHORT_VRS:
            _, vr, start, length = _element(prefix, position, _META)
        if group != 2 or length == UNDEFINED:
            break
        position = start + length
        if position > len(data):
            prefix.need(position)
        tag = group << 16 | number
        found[tag] = new(Element, (tag, vr, start, length))
    return position


def _element(prefix: Prefix, position: int, syntax: Syntax) -> Element:
    """Read tag, VR and length of an element (PS3.5 section 7.1)."""
    group, number, vr, length = _HEADS[syntax.endian].unpack_from(prefix.data, position)
    tag = group << 16 | number
    if syntax.implicit or not b"AA" <= vr <= b"ZZ":
        (length,) = _LENGTHS[syntax.endian].unpack_from(prefix.data, position + 4)
        return Element(tag, None, position + 8, length)
    if vr not in LONG_VRS:
        return Element(tag, vr, position + 8, length)
    prefix.need(position + 12)
    (length,) = _LENGTHS[syntax.endian].unpack_from(prefix.data, position + 8)
    return Element(tag, vr, position + 12, length)


def _skip(prefix: Prefix, position: int, syntax: Syntax) -> int:
    """Return where a value of undefined length ends (PS3.5 section 7.5).

    Sequences and items nest like brackets, so their depth needs no recursion; for each
    open one it is kept whether its elements are implicit (PS3.5 section 6.2.2).
    """
    open_ = [syntax.implicit]
    while open_:
        prefix.need(position + 8)
        element = _element(prefix, position, Syntax(syntax.endian, open_[-1]))
        position = element.start
        if element.tag in {ITEM_END, SEQUENCE_END}:
            open_.pop()
        elif element.length != UNDEFINED:
            position += element.length
        else:
            prefix.reach(position + 8)
            is_item = element.tag == ITEM
            implicit = is_item and is_implicit(prefix.data, position)
            open_.append(open_[-1] or implicit)
    return position


def walk_items(
    prefix: Prefix, sequence: Element, syntax: Syntax
) -> Iterator[Iterator[tuple[Element, Syntax]]]:
    """Yield the items of a sequence that was read, each as an iterator of elements.

    Elements come with how they are written; those of an item have to be taken before
    the next item is asked for. Bytes that are no items end the sequence.
    """
    position = sequence.start
    stop = len(prefix.data)
    if sequence.length != UNDEFINED:
        stop = min(stop, position + sequence.length)
    while position + 8 <= stop:
        item = _element(prefix, position, Syntax(syntax.endian, implicit=True))
        if item.tag != ITEM:
            return
        end = min(stop, item.start + item.length)
        if item.length == UNDEFINED:
            end = _skip(prefix, item.start, syntax)
        implicit = syntax.implicit or is_implicit(prefix.data, item.start)
        yield _walk_item(prefix, item.start, end, Syntax(syntax.endian, implicit))
        position = end


def _walk_item(
    prefix: Prefix, position: int, stop: int, syntax: Syntax
) -> Iterator[tuple[Element, Syntax]]:
    while position + 8 <= stop:
        element = _element(prefix, position, syntax)
        if element.tag == ITEM_END:
            return
        yield element, syntax
        if element.length == UNDEFINED:
            position = _skip(prefix, element.start, syntax)
        else:
            position = element.start + element.length
