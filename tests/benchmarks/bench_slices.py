"""Slices: random axial slices of one volume."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dicomdask.shards import CODECS
from tests.benchmarks import readers
from tests.benchmarks.contest import Contest, Report, compete_in_reading
from tests.benchmarks.inputs import SCALES, Scale, Series, convert, some, write_inputs

PROFILES = ("slice", "balanced")


def run(scale_name: str) -> Report:
    """Compare all readers, by codec and profile."""
    scale = SCALES[scale_name]
    plane = slice(0, scale.width)
    boxes = [(slice(z, z + 1), plane, plane) for z in range(scale.n_slices)]
    contests = read_boxes("slices", scale, some(boxes, scale.n_reads), PROFILES)
    none, lz4 = contests["slices none slice"], contests["slices lz4 slice"]
    measures = {
        "slices none / memmap": none.ratio("dicomdask", "memmap (limit)"),
        "slices lz4 / zarr-python": lz4.ratio("dicomdask", "zarr-python"),
        "slices lz4 / tensorstore": lz4.ratio("dicomdask", "tensorstore"),
        "slices lz4 / raw DICOM": lz4.ratio("dicomdask", "pydicom, raw DICOM"),
    }
    return Report(tuple(contests.values()), measures)


def read_boxes(
    unit: str, scale: Scale, boxes: Sequence[readers.Box], profiles: Sequence[str]
) -> dict[str, Contest]:
    """Let all readers read the boxes, once a codec and profile; by title."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        series = write_inputs(folder / "series", scale)
        return {
            f"{unit} {codec} {profile}": _contest(
                f"{unit} {codec} {profile}", (codec, profile), series, boxes, scale
            )
            for profile in profiles
            for codec in CODECS
        }


def _contest(
    title: str,
    layout: tuple[str, str],
    series: Series,
    boxes: Sequence[readers.Box],
    scale: Scale,
) -> Contest:
    codec, profile = layout
    folder = series.paths[0].parent.parent
    dataset = convert(
        series, folder / f"{codec}-{profile}.zarr", codec=codec, profile=profile
    )
    h5_name = "h5py" if codec == "none" else "h5py, gzip"
    contenders = {
        "memmap (limit)": readers.memmap(folder, series.stored),
        "dicomdask": readers.dicomdask(dataset),
        "dicomdask, first touch": readers.dicomdask_first(dataset, len(boxes)),
        "zarr-python": readers.zarr_python(dataset),
        "tensorstore": readers.open_tensorstore(dataset),
        h5_name: readers.h5(folder, series.stored, dataset, codec),
        "pydicom, raw DICOM": readers.dicom(series),
    }
    unit = title.split()[0]
    slow = {"zarr-python": scale.n_slow_reads, h5_name: scale.n_slow_reads}
    n_files = boxes[0][0].stop - boxes[0][0].start
    slow["pydicom, raw DICOM"] = max(1, scale.n_slow_reads // n_files)
    return compete_in_reading(
        f"{title}: {series.told}",
        contenders,
        boxes,
        unit=unit,
        reference="memmap (limit)",
        rounds=scale.rounds,
        fewer=slow,
    )
