"""Decode: a frame of each syntax, against its decoder alone and pydicom."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import imagecodecs
import jpeg_ls
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicomdask.header import read_dataset
from dicomdask.pixels import FrameDecoder
from tests.benchmarks.contest import Contender, Contest, Report, compete
from tests.benchmarks.inputs import SCALES, Scale
from tests.builders import make_instance, to_bytes

Array = np.ndarray[Any, np.dtype[Any]]

SYNTAXES = {
    "raw": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG lossless": JPEGLosslessSV1,
    "J2K": JPEG2000Lossless,
    "HTJ2K": HTJ2KLossless,
}


def run(scale_name: str) -> Report:
    """Compare our way with the decoder that it uses, and with pydicom's."""
    scale = SCALES[scale_name]
    contests = {name: _contest(name, scale) for name in SYNTAXES}
    measures = {
        f"decode {name} / decoder": contest.ratio("dicomdask", "decoder alone")
        for name, contest in contests.items()
    }
    return Report(tuple(contests.values()), measures)


def _contest(name: str, scale: Scale) -> Contest:
    dataset, alone = _prepare(name, _image(scale.width))
    times = 1 if scale.name == "tiny" else _times(name)
    contenders = {
        "decoder alone": alone,
        "dicomdask": lambda: FrameDecoder(dataset).decode(0),
        "pydicom": partial(_by_pydicom, dataset),
    }
    return compete(
        f"decode {name}, {scale.width}²",
        {
            one: Contender(partial(_repeat, decode, times), times)
            for one, decode in contenders.items()
        },
        unit="frames",
        reference="decoder alone",
        rounds=scale.rounds,
    )


def _times(name: str) -> int:
    return {"raw": 400, "RLE": 100}.get(name, 10)


def _repeat(decode: Callable[[], Array], times: int) -> list[Array]:
    return [decode() for _ in range(times)][-1:]


def _by_pydicom(dataset: Dataset) -> Array:
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    return decoder.as_array(dataset, raw=True)[0]


def _image(width: int) -> Array:
    """Return a smooth field with noise, 12 bits in 16."""
    y, x = np.mgrid[:width, :width] / width
    field = 1500 + 1200 * np.sin(9 * x + 4 * y) * np.cos(5 * y)
    noise = np.random.default_rng(0).normal(0, 12, field.shape)
    return np.clip(field + noise, 0, 4095).astype(np.uint16)


def _prepare(name: str, image: Array) -> tuple[Dataset, Callable[[], Array]]:
    """Return a file of this syntax, read, and what decodes its frame alone."""
    ds = make_instance(pixels=image)
    stream, decode = _encoded(name, image)
    if name != "raw":
        ds.PixelData = encapsulate([stream])
        ds.file_meta.TransferSyntaxUID = SYNTAXES[name]
        ds["PixelData"].is_undefined_length = True
    return read_dataset(to_bytes(ds)), lambda: decode(stream).reshape(image.shape)


def _encoded(name: str, image: Array) -> tuple[bytes, Callable[[bytes], Array]]:
    """Return the stream of an image, and its fastest decoder."""
    if name == "raw":
        return image.tobytes(), lambda data: np.frombuffer(data, "<u2").copy()
    if name == "RLE":
        return _rle(image), lambda data: np.frombuffer(
            imagecodecs.dicomrle_decode(data, "<u2"), "<u2"
        )
    if name == "JPEG-LS":
        stream = jpeg_ls.encode_array(image)
        return bytes(stream), lambda data: np.frombuffer(
            jpeg_ls.decode_pixel_data(data)[0], "<u2"
        )
    if name == "JPEG lossless":
        return imagecodecs.ljpeg_encode(image, bitspersample=16), (
            imagecodecs.ljpeg_decode
        )
    if name == "J2K":
        return imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True), (
            imagecodecs.jpeg2k_decode
        )
    return imagecodecs.htj2k_encode(image, reversible=True), imagecodecs.htj2k_decode


def _rle(image: Array) -> bytes:
    ds = make_instance(pixels=image)
    ds.compress(RLELossless, generate_instance_uid=False)
    packed = pydicom.dcmread(io.BytesIO(to_bytes(ds)))
    return next(pydicom.encaps.generate_frames(packed.PixelData, number_of_frames=1))
