"""Decoders against each other: the first in line gives what pydicom's plug-ins give."""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicomdask.errors import InputError
from dicomdask.header import read_dataset
from dicomdask.pixels import (
    FrameDecoder,
    codecs,
    decode_frames,
    reference_frames,
    streams,
)
from dicomdask.pixels.form import read_form
from tests.builders import make_instance, to_bytes
from tests.jpegs import Layout, make_jpeg, random_blocks
from tests.test_pixels import dev_files, quietly

LOSSLESS = {
    *("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"),
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5"),
    "1.2.840.10008.1.2.4.202",
}


def compressed(path: Path) -> Dataset | None:
    """Return a data set whose frames are compressed, or None."""
    try:
        dataset = read_dataset(path.read_bytes())
        syntax = dataset.file_meta.TransferSyntaxUID
        known = str(syntax).startswith("1.2.840.10008.1.2.4.") or syntax == RLELossless
        return dataset if known and "PixelData" in dataset else None
    except (InputError, AttributeError):
        return None


def pairs(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what the first decoder and pydicom's make of each frame, at most four."""
    form = read_form(dataset)
    value = dataset.PixelData
    for fragments in streams.split_frames(value, form.n_frames)[:4]:
        data = streams.join(value, fragments)
        is_rle = form.syntax == RLELossless
        stream = None if is_rle else streams.read_stream(data)
        fast = codecs._fast_decoder(form, stream)
        if fast is None:
            return
        try:
            found, photometric = fast(form, data, stream)
        except codecs.UNFIT:
            continue
        wanted, told = codecs.decode_by_pydicom(form, data)
        assert photometric == told
        yield found, wanted


def test_line_25_decoders_agree_on_all_real_files() -> None:
    n: Counter[str] = Counter()
    for path in dev_files():
        with quietly():
            dataset = compressed(path)
            if dataset is None:
                continue
            try:
                for found, wanted in pairs(dataset):
                    np.testing.assert_array_equal(found, wanted, err_msg=path.name)
                    assert found.dtype == wanted.dtype
                    n[str(dataset.file_meta.TransferSyntaxUID)] += 1
            except InputError:
                continue
    assert set(n) >= LOSSLESS - {"1.2.840.10008.1.2.4.202"}
    assert sum(n.values()) > 80


def test_decoders_that_disagree_are_found_out(monkeypatch: Any) -> None:
    ds = make_instance(pixels=np.arange(1440, dtype="u2").reshape(40, 36))
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    right = codecs.imagecodecs.jpeg2k_decode
    monkeypatch.setattr(
        codecs.imagecodecs,
        "jpeg2k_decode",
        lambda data, **options: right(data, **options) + 1,
    )
    [(found, wanted)] = pairs(read_dataset(to_bytes(ds)))
    assert not np.array_equal(found, wanted)


samples = st.tuples(
    st.sampled_from(["u1", "i1", "u2", "i2"]),
    st.integers(32, 50),
    st.integers(32, 50),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "ends", "smooth"]),
)


@given(samples, st.sampled_from([RLELossless, JPEG2000Lossless, JPEGLSLossless]))
@settings(max_examples=60, deadline=None)
def test_line_25_lossless_is_lossless(
    sample: tuple[str, int, int, int, str], syntax: str
) -> None:
    dtype, rows, columns, seed, kind = sample
    rng, info = np.random.default_rng(seed), np.iinfo(sample[0])
    pixels = rng.integers(info.min, info.max, (rows, columns), dtype, endpoint=True)
    if kind == "ends":
        pixels = np.where(pixels > 0, info.max, info.min).astype(dtype)
    if kind == "smooth":
        pixels = np.sort(pixels, axis=1)
    ds = make_instance(pixels=pixels)
    ds.compress(syntax, generate_instance_uid=False)
    dataset = read_dataset(to_bytes(ds))
    np.testing.assert_array_equal(decode_frames(dataset)[0], pixels, strict=True)
    for found, wanted in pairs(dataset):
        np.testing.assert_array_equal(found, wanted)


def segment(plane: bytes) -> bytes:
    """Return an RLE segment of nothing but literal runs (PS3.5 section G.3)."""
    runs = [plane[start : start + 128] for start in range(0, len(plane), 128)]
    packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return packed + b"\x80" * (len(packed) % 2)


@pytest.mark.parametrize("changes", [(-100, 0), (0, -100), (2, -2), (-9, -9)])
def test_line_20_rle_segments_of_other_lengths_leave_nothing_unset(
    changes: tuple[int, int],
) -> None:
    """What is decoded into starts with anything: all of it is written, or none kept."""
    pixels = np.arange(1, 1441, dtype="u2").reshape(40, 36) * 40
    high, low = (pixels >> 8).astype("u1").tobytes(), pixels.astype("u1").tobytes()
    ds = make_instance(pixels=pixels, transfer_syntax=RLELossless)

    def frame(planes: list[bytes]) -> Dataset:
        parts = [*map(segment, planes)]
        head = struct.pack("<16I", 2, 64, 64 + len(parts[0]), *[0] * 13)
        ds.PixelData = encapsulate([head + b"".join(parts)])
        ds["PixelData"].is_undefined_length = True
        return read_dataset(to_bytes(ds))

    np.testing.assert_array_equal(decode_frames(frame([high, low]))[0], pixels)
    planes = [
        (plane + bytes(9))[: len(plane) + change]
        for plane, change in zip((high, low), changes, strict=True)
    ]
    with pytest.raises(InputError) as caught:
        decode_frames(frame(planes))
    assert caught.value.code == "bad-pixels"


# --- how frames lie in the stream -------------------------------------------------


def many_frames(syntax: str, n: int = 5) -> tuple[Dataset, np.ndarray, list[bytes]]:
    pixels = np.random.default_rng(4).integers(0, 4096, (n, 40, 36)).astype("u2")
    ds = make_instance(pixels=pixels)
    ds.compress(syntax, generate_instance_uid=False)
    frames = list(generate_frames(ds.PixelData, number_of_frames=n))
    return ds, pixels, frames


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("n_fragments", [1, 3])
def test_line_25_offset_tables_and_fragments(
    syntax: str, has_table: bool, n_fragments: int
) -> None:
    if syntax == RLELossless and not has_table and n_fragments > 1:
        pytest.skip("nothing tells where such a frame ends")
    ds, pixels, frames = many_frames(syntax)
    ds.PixelData = encapsulate(frames, n_fragments, has_bot=has_table)
    data = to_bytes(ds)
    np.testing.assert_array_equal(decode_frames(read_dataset(data)), pixels)
    decoder = FrameDecoder(read_dataset(data))
    for number in (4, 0, 2):
        np.testing.assert_array_equal(decoder.decode(number), pixels[number])
    with pytest.raises(IndexError):
        decoder.decode(5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_line_25_extended_offset_tables(syntax: str) -> None:
    ds, pixels, frames = many_frames(syntax)
    value, offsets, lengths = encapsulate_extended(frames)
    ds.PixelData = value
    ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = offsets, lengths
    np.testing.assert_array_equal(decode_frames(read_dataset(to_bytes(ds))), pixels)


@pytest.mark.parametrize("table", [b"", b"\0" * 20, b"\1\0\0\0" * 5, b"\xff" * 20])
def test_line_25_an_offset_table_that_is_wrong_is_passed_over(table: bytes) -> None:
    ds, pixels, frames = many_frames(JPEGLSLossless)
    value = encapsulate(frames, 2, has_bot=False)
    length = len(table).to_bytes(4, "little")
    ds.PixelData = value[:4] + length + table + value[8:]
    np.testing.assert_array_equal(decode_frames(read_dataset(to_bytes(ds))), pixels)


def jpeg_instance(stream: bytes, layout: Layout) -> Dataset:
    """Return an instance with a JPEG of one component, padded to an even length."""
    pixels = np.zeros((layout.rows, layout.columns), "u2")
    ds = make_instance(pixels=pixels, BitsStored=layout.precision)
    ds.HighBit, ds.PixelRepresentation = layout.precision - 1, 0
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    ds.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds


TWELVE = Layout(24, 32, precision=12)


@pytest.mark.parametrize("n", [9, 40])
def test_line_25_a_jpeg_may_be_padded_with_any_number_of_ff(n: int) -> None:
    stream = make_jpeg(TWELVE, random_blocks(TWELVE, 3))
    wanted = decode_frames(read_dataset(to_bytes(jpeg_instance(stream, TWELVE))))
    padded = jpeg_instance(stream + b"\xff" * n, TWELVE)
    np.testing.assert_array_equal(decode_frames(read_dataset(to_bytes(padded))), wanted)
    cut = jpeg_instance(stream[:-2] + b"\xff" * n, TWELVE)
    with pytest.raises(InputError) as caught:
        decode_frames(read_dataset(to_bytes(cut)))
    assert caught.value.code == "truncated"


def test_line_25_a_sequential_scan_that_claims_no_spectrum_has_all_of_it() -> None:
    stream = make_jpeg(TWELVE, random_blocks(TWELVE, 4))
    empty = stream.replace(b"\1\0\0\x3f\0", b"\1\0\0\0\0", 1)
    assert empty != stream
    wanted = decode_frames(read_dataset(to_bytes(jpeg_instance(stream, TWELVE))))
    data = to_bytes(jpeg_instance(empty, TWELVE))
    np.testing.assert_array_equal(decode_frames(read_dataset(data)), wanted)
    np.testing.assert_array_equal(reference_frames(data), wanted)


def test_line_20_a_frame_less_than_claimed() -> None:
    ds, _, frames = many_frames(RLELossless)
    ds.PixelData = encapsulate(frames[:-1])
    with pytest.raises(InputError) as caught:
        FrameDecoder(read_dataset(to_bytes(ds)))
    assert caught.value.code == "truncated"


def test_line_38_a_deflated_frame_cannot_grow() -> None:
    ds = make_instance(pixels=np.zeros((16, 12), "u2"))
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(1 << 24)) + packer.flush()
    ds.PixelData = encapsulate([bomb + b"\0" * (len(bomb) % 2)])
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    dataset = read_dataset(to_bytes(ds))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(codecs.DEFLATED_FRAMES)
    with pytest.raises(InputError) as caught:
        decode_frames(dataset)
    assert caught.value.code == "bad-pixels"


# --- bits -------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (8, 8), (7, 9)])
def test_line_19_single_bits_go_on_from_frame_to_frame(rows: int, columns: int) -> None:
    bits = np.random.default_rng(5).integers(0, 2, (3, rows, columns)).astype("u1")
    ds = make_instance(pixels=bits)
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = 0
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    found = decode_frames(read_dataset(to_bytes(ds)))
    np.testing.assert_array_equal(found, bits, strict=True)
    wanted = pydicom.dcmread(io.BytesIO(to_bytes(ds))).pixel_array
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("signed", [0, 1])
def test_line_19_twelve_bits_packed(signed: int) -> None:
    values = np.random.default_rng(6).integers(0, 4096, (2, 5, 7))
    flat = values.ravel().tolist()
    whole = sum(value << 12 * place for place, value in enumerate(flat))
    ds = make_instance(pixels=values.astype("u2"))
    ds.BitsAllocated = ds.BitsStored = 12
    ds.HighBit, ds.PixelRepresentation = 11, signed
    n = -(-12 * len(flat) // 8)
    ds.PixelData = whole.to_bytes(n + n % 2, "little")
    found = decode_frames(read_dataset(to_bytes(ds)))
    wanted = values - 4096 * (signed * (values >= 2048))
    np.testing.assert_array_equal(found, wanted)
