"""Memory: the bound that is stated is held, and what it cannot hold is rejected.

Small by default; `--full` runs the sizes that the names tell.
"""

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import dicomdask
from dicomdask import (
    layout,
    limits,
    pipeline,
    plan,
    rows,
    shards,
    show,
    steps,
    storage,
    values,
)
from dicomdask.errors import OptionError
from dicomdask.model import Meaning, Settings
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from dicomdask.tasks import encode, index, planning
from dicomdask.work import Work
from tests.big import MIB, Run, run_measured, write_claim, write_slices
from tests.builders import make_instance, make_series, to_bytes, write_series
from tests.conftest import Convert
from tests.strategies import make_stack
from tests.test_multiframe import (
    ENHANCED_MR,
    frame_group,
    item,
    make_enhanced,
    rescale,
)
from tests.test_plan import plan_of, volume_of

SYNTAXES = (
    *(ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
    *(RLELossless, JPEG2000Lossless, JPEGLSLossless),
)
DTYPES = ("uint8", "int16", "uint16", "int32", "uint32")


# --- the bound is arithmetic --------------------------------------------------


def big_volume(n: int = 3000, **fields: Any) -> Any:
    """Return the plan of a CT volume of 512² slices: 1.5 GB by default."""
    size = {"rows": 512, "columns": 512, "size": 530_000, "header_bytes": 5000}
    return volume_of(make_stack(n, **{**size, **fields}))


def test_a_volume_larger_than_a_worker_is_cut_so_that_its_tasks_fit():
    volume = big_volume()
    tasks = list(plan.volume_tasks(volume))
    assert volume.raw_bytes > 1.5e9
    assert len(tasks) > 5
    assert plan.memory_bytes(volume) < 0.95 * 2**30


def test_the_bound_does_not_grow_with_a_volume_of_many_shards():
    assert plan.memory_bytes(big_volume(10_000)) <= plan.memory_bytes(big_volume(2000))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    rows=st.integers(1, 3000),
    columns=st.integers(1, 3000),
    bits=st.sampled_from([8, 16, 32]),
    size=st.integers(1, 10**8),
    header=st.integers(1, 10**6),
)
def test_the_bound_never_falls_when_anything_grows(
    n: int, rows: int, columns: int, bits: int, size: int, header: int
):
    def bound(**changes: int) -> int:
        told: dict[str, Any] = {
            "rows": rows,
            "columns": columns,
            "size": size,
            "bits_allocated": bits,
            "bits_stored": bits,
            "high_bit": bits - 1,
            "header_bytes": header,
            "transfer_syntax_uid": RLELossless,
        }
        (volume,) = plan_of(make_stack(n, **(told | changes))).volumes
        return plan.memory_bytes(replace(volume, layout=whole(volume)))

    least = bound()
    assert least > plan.BASE_BYTES
    for more in (
        *({"rows": rows + 7}, {"columns": columns + 7}, {"size": size + 7}),
        {"header_bytes": header + 7},
    ):
        assert bound(**more) >= least


def whole(volume: Any) -> Any:
    """Return a layout of one shard: cutting finer would take less memory."""
    shape = volume.shape
    return replace(volume.layout, chunks=shape, shards=shape)


def test_what_is_fetched_ahead_and_the_part_of_the_plan_count():
    volume = big_volume(8)
    far = tuple(replace(f, url=f"s3://bucket/{f.url}") for f in volume.frames)
    more = plan.memory_bytes(replace(volume, frames=far)) - plan.memory_bytes(volume)
    assert 0 < more <= 2 * (limits.AHEAD_BYTES + 530_000)
    part = plan.Plan((volume,), ())
    assert plan.held_bytes(part) > 0
    assert plan.largest_task_bytes(part) == plan.memory_bytes(
        volume, plan.held_bytes(part)
    )
    assert plan.largest_task_bytes(plan.Plan((), ())) == 0


@pytest.mark.parametrize("profile", ["slice", "balanced", "patch"])
def test_shards_hold_few_frames_and_little_of_wide_values(profile: Any):
    def cut(shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
        return layout.choose_layout(shape, dtype, profile).shards

    deep = cut((40, 3000, 64, 64), "int16")
    assert deep[0] * deep[1] <= layout.SHARD_FRAMES
    wide = cut((500, 512, 512), "int32")
    layer = 32 * 512 * 512 * 4  # of chunks, if they are those of `patch`
    assert np.prod(wide) * 4 <= max(layout.SHARD_BYTES // layout.WIDE_SHARE, layer)


# --- one task takes less than its bound ---------------------------------------


def write_images(
    folder: Path, pixels: np.ndarray, syntax: str, **elements: Any
) -> None:
    """Write a CT series of these pixels, compressed as told."""
    folder.mkdir(parents=True)
    for number, image in enumerate(pixels, 1):
        place = [0.0, 0.0, 2.5 * number]
        ds = make_instance(
            instance=number, pixels=image, ImagePositionPatient=place, **elements
        )
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = image.byteswap().tobytes()
        if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
            ds.compress(syntax)
        ds.file_meta.TransferSyntaxUID = syntax
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Trace allocations; yield what returns their peak."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Peak:
    """What the largest task took, and what was stated of it, without the base."""

    taken: int
    bound: int


def encode_peak(source: Path, store: Path, key_file: Path, **options: Any) -> Peak:
    """Plan a source, then encode its tasks one at a time and watch."""
    session = steps.prepare(
        [str(source)],
        str(store),
        Settings(**options),
        key_file=str(key_file),
        scheduler="synchronous",
    )
    taken, bound = [], []
    with session:
        work = session.work
        for name, part in work.read_plans():
            bound.append(plan.largest_task_bytes(part) - plan.BASE_BYTES)
            n = len(encode.plan_tasks(part))
            del part
            for number in range(n):
                with traced() as peak:
                    done = encode.encode_batch(
                        (name, number, number + 1), work_url=work.url
                    )
                    taken.append(peak())
                assert done["tasks"] == 1
    return Peak(max(taken), max(bound))


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> None:
    """Load what a first use loads: it is part of the base."""
    folder = tmp_path_factory.mktemp("warm")
    write_series(folder / "in", make_series(2))
    encode_peak(folder / "in", folder / "o.zarr", key_file)


SMALL = st.tuples(st.integers(1, 12), *[st.integers(40, 200)] * 2)


@settings(max_examples=8, deadline=None)
@given(
    shape=SMALL,
    dtype=st.sampled_from(DTYPES),
    syntax=st.sampled_from(SYNTAXES),
    profile=st.sampled_from(["slice", "balanced", "patch"]),
    is_noise=st.booleans(),
)
def test_no_task_takes_more_than_is_stated(
    tmp_path_factory: pytest.TempPathFactory,
    key_file: Path,
    shape: tuple[int, ...],
    dtype: str,
    syntax: str,
    profile: Any,
    is_noise: bool,
):
    if np.dtype(dtype).itemsize == 4 and syntax in SYNTAXES[3:]:
        syntax = ExplicitVRLittleEndian  # nobody compresses these here
    folder = tmp_path_factory.mktemp("peak")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 4000 if is_noise else 2, shape).astype(dtype)
    write_images(folder / "in", pixels, syntax)
    peak = encode_peak(folder / "in", folder / "o.zarr", key_file, profile=profile)
    assert peak.taken <= peak.bound


LARGE = {
    "uint16": ("uint16", ExplicitVRLittleEndian, (48, 512, 512), 0.6),
    "big endian": ("int16", ExplicitVRBigEndian, (48, 512, 512), 0.6),
    "one large image": ("uint16", JPEG2000Lossless, (1, 1500, 1200), 0.3),
    "all values differ": ("uint32", ExplicitVRLittleEndian, (20, 256, 256), 0.2),
}


@pytest.mark.parametrize("case", LARGE)
def test_the_bound_is_held_and_near_where_arrays_are_large(
    tmp_path: Path, key_file: Path, case: str
):
    dtype, syntax, shape, least = LARGE[case]
    kind = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    pixels = rng.integers(kind.min, int(kind.max) + 1, shape).astype(dtype)
    write_images(tmp_path / "in", pixels, syntax)
    peak = encode_peak(tmp_path / "in", tmp_path / "o.zarr", key_file)
    assert least * peak.bound < peak.taken <= peak.bound


def test_long_and_differing_headers_count(tmp_path: Path, key_file: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(1, 21):
        place = [0.0, 0.0, 2.5 * number]
        ds = make_instance(instance=number, ImagePositionPatient=place)
        item = make_instance()
        del item.PixelData, item.file_meta
        ds.ReferencedImageSequence = [item] * 8
        for group in range(0x0011, 0x0019, 2):
            block = ds.private_block(group, "MAKER", create=True)
            for element in range(30):
                block.add_new(element, "LO", f"{number:060d}")
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    peak = encode_peak(folder, tmp_path / "o.zarr", key_file, policy="none")
    assert peak.taken <= peak.bound


def test_headers_that_differ_in_too_much_reject_the_whole_volume(
    tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
):
    source = tmp_path / "in"
    write_series(source / "long", make_series(6))
    write_series(
        source / "short", (make_instance(series=2, instance=n) for n in range(1, 3))
    )
    monkeypatch.setattr(encode, "HEADER_TEXT_BYTES", 600)
    convert(source, tmp_path / "o.zarr")
    found = inputs(tmp_path / "o.zarr")
    assert found == {"stored": 2, "too-large": 6}


def inputs(store: Path) -> dict[str, int]:
    """Return how many inputs have each code."""
    codes = dicomdask.open_dataset(str(store)).inputs["code"]
    return dict(Counter(codes))


# --- what holds less ----------------------------------------------------------


def test_frames_give_back_the_headers_they_were_given():
    headers: list[dict[str, Any]] = [
        {"00080018": {"vr": "UI", "Value": ["1"]}, "00080060": {"vr": "CS"}},
        {"00080018": {"vr": "UI", "Value": ["2"]}, "00180050": {"vr": "DS"}},
        {"00080018": {"vr": "UI", "Value": ["3"]}, "00080060": {"vr": "CS"}},
    ]
    frames = rows.Frames()
    (planned_frame,) = volume_of(make_stack(1)).frames
    for header in headers:
        source = header["00080018"]["Value"][0]
        frames.add(
            rows.EncodedInstance(source, header, "1.2", None, None),
            [rows.EncodedFrame(planned_frame, Meaning(1.0, 0.0))],
        )
    assert [one.header for one in frames.instances()] == headers
    assert [uid for _, uid in frames] == ["1", "2", "3"]
    assert frames.constant == rows.constant_header(headers)
    assert frames.first.header == headers[0]
    assert len(frames) == 3


def test_texts_that_frames_share_are_held_and_counted_once():
    frames = rows.Frames()
    (planned_frame,) = volume_of(make_stack(1)).frames
    for number in range(100):
        text = "".join(["lut"] * (1000 + number // 50))
        meaning = Meaning(None, None, modality_lut=text, warnings=("lossy",))
        instance = rows.EncodedInstance(str(number), {}, "1.2", None, None)
        frames.add(instance, [rows.EncodedFrame(planned_frame, meaning)])
    texts = {id(frame.meaning.modality_lut) for frame, _ in frames}
    assert len(texts) == len(frames.every("modality_lut")) == 2
    assert frames.text_bytes < 3 * 3003
    assert frames.warnings == ["lossy"]


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50),
    st.lists(st.integers(-3, 3), max_size=50),
)
def test_counting_wide_values_equals_numpy(wide: list[int], narrow: list[int]):
    array = np.array(wide + narrow, np.int32)
    found = values.statistics(array)
    expected, counts = np.unique(array, return_counts=True)
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.counts, counts)


def test_an_encoded_shard_is_held_once():
    array = np.random.default_rng(0).integers(0, 255, (32, 512, 512), np.uint8)
    cut = ((16, 128, 128), (32, 512, 512))
    with traced() as peak:
        data = shards.encode_shard(array, *cut, "none")
        assert peak() < 1.3 * len(data)


# --- workers ------------------------------------------------------------------


def test_tasks_in_threads_share_the_base(monkeypatch: pytest.MonkeyPatch):
    limit = plan.BASE_BYTES + 4000 * MIB
    monkeypatch.setattr(pipeline.run.distributed.system, "MEMORY_LIMIT", limit)
    monkeypatch.setattr(pipeline.run, "CPU_COUNT", 4)
    assert pipeline.Runner("synchronous").task_memory == limit
    assert pipeline.Runner("threads").task_memory == plan.BASE_BYTES + 1000 * MIB
    assert pipeline.Runner("processes").task_memory == limit // 4


def test_a_nanny_ends_a_worker_before_its_limit():
    assert pipeline.local_memory("1GiB") == int(0.95 * 2**30)


def test_workers_too_small_for_anything_are_refused(series: Path, tmp_path: Path):
    with pytest.raises(OptionError, match=r"takes 256 MiB before .* --memory"):
        dicomdask.convert(str(series), str(tmp_path / "o.zarr"), memory="200MiB")


# --- what cannot be held ------------------------------------------------------


@pytest.fixture
def small_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task take 600 MiB."""
    monkeypatch.setattr(pipeline.Runner, "task_memory", 600 * MIB)


def write_liars(folder: Path) -> None:
    """Write small files that claim to hold much; two of them are copies."""
    huge = {"Rows": 65535, "Columns": 65535}
    write_claim(folder / "raw.dcm", series=11, **huge)
    write_claim(folder / "frames.dcm", series=12, **huge, NumberOfFrames=7)
    frame = make_instance(series=13, pixels=np.ones((64, 64), np.uint16))
    frame.compress(RLELossless)
    frame.Rows = frame.Columns = 65535
    (folder / "packed.dcm").write_bytes(to_bytes(frame))
    for name, text in (("copy", "1"), ("other", "2")):
        frame.SeriesInstanceUID = frame.StudyInstanceUID + ".14"
        frame.SOPInstanceUID = frame.StudyInstanceUID + ".14.1"
        frame.SeriesDescription = text
        (folder / f"{name}.dcm").write_bytes(to_bytes(frame))


def test_claims_of_headers_are_refused_before_anything_is_allocated(
    tmp_path: Path, convert: Convert, small_worker: None
):
    source, store = tmp_path / "in", tmp_path / "o.zarr"
    write_series(source / "ct", make_series(4))
    write_liars(source)
    with traced() as peak:
        convert(source, store)
        assert peak() < 40 * MIB
    assert inputs(store) == {
        "stored": 4,
        "truncated": 2,
        "too-large": 3,
    }


def test_what_was_too_large_is_tried_again_by_larger_workers(
    tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
):
    source, store = tmp_path / "in", tmp_path / "o.zarr"
    write_series(source / "ct", make_series(4))
    large = np.random.default_rng(0).integers(0, 9, (1, 2400, 3200)).astype("int16")
    write_images(source / "xr", large, ExplicitVRLittleEndian, series=2)
    copies = source / "again"
    copies.mkdir()
    data = next((source / "xr").iterdir()).read_bytes()
    (copies / "copy.dcm").write_bytes(data)
    monkeypatch.setattr(pipeline.Runner, "task_memory", 350 * MIB)
    convert(source, store)
    assert inputs(store) == {"stored": 4, "too-large": 2}
    monkeypatch.undo()
    convert(source, store)
    assert inputs(store) == {"stored": 5, "duplicate": 1}


def test_what_is_encoded_already_is_not_too_large_any_more(store: Path, key: Key):
    work = Work(f"{store}.work")
    names = work.plan_names()
    assert planning.prune(work, names, limit=None, memory=1, key=key) == []
    storage.remove_tree(work.path("receipts", "tasks"))
    assert planning.prune(work, names, limit=None, memory=1, key=key) == names


def test_a_long_header_is_read_alone_and_an_endless_one_not_at_all(tmp_path: Path):
    long = tmp_path / "long.dcm"
    endless = tmp_path / "endless.dcm"
    ds = make_instance()
    ds.private_block(0x0011, "MAKER", create=True).add_new(1, "OB", bytes(3 * MIB))
    long.write_bytes(to_bytes(ds))
    text = to_bytes(make_instance())
    place = text.index(b"\x28\x00\x02\x00US")
    head = b"\x11\x00\x10\x10OB\0\0" + (limits.MAX_HEADER_BYTES).to_bytes(4, "little")
    with endless.open("wb") as file:
        file.write(text[:place] + head)
        file.truncate(limits.MAX_HEADER_BYTES + 5 * MIB)
    files = index.list_sources([str(tmp_path)], exclude=())
    with traced() as peak:
        (found,) = index.read_instances(files)
        assert peak() < limits.MAX_HEADER_BYTES // 8
    assert found.url == str(long)
    assert found.header_bytes > 3 * MIB


def test_indexing_the_longest_header_takes_what_is_stated(tmp_path: Path):
    ds = make_instance()
    block = ds.private_block(0x0011, "MAKER", create=True)
    block.add_new(1, "OB", bytes(limits.MAX_HEADER_BYTES - 1 * MIB))
    (tmp_path / "1.dcm").write_bytes(to_bytes(ds))
    del ds, block
    files = index.list_sources([str(tmp_path)], exclude=())
    with traced() as peak:
        (found,) = index.read_instances(files)
        taken = peak()
    assert 0 < found.header_bytes < limits.MAX_HEADER_BYTES
    assert taken < plan.index_bytes(1) - plan.BASE_BYTES


def described_frames(n: int) -> list[Dataset]:
    """Return functional groups that tell of each frame all there is, of none alike."""
    rng = np.random.default_rng(0)
    frames = []
    for z in range(n):
        a, b, c, d, e = rng.random(5).tolist()
        moment = f"20200101{z // 3600:02d}{z // 60 % 60:02d}{z % 60:02d}.{z:06d}"
        frames.append(
            frame_group(
                (-10.123456, 20.654321, 2.5 * z),
                PixelValueTransformationSequence=rescale(round(a, 8), round(b, 8)),
                MRTimingAndRelatedParametersSequence=item(
                    RepetitionTime=a, FlipAngle=b
                ),
                MREchoSequence=item(EffectiveEchoTime=c),
                MRDiffusionSequence=item(DiffusionBValue=d * e),
                FrameContentSequence=item(
                    StackID=str(z), FrameAcquisitionDateTime=moment
                ),
            )
        )
    return frames


def test_what_functional_groups_say_of_frames_counts(tmp_path: Path, key: Key):
    n, n_files = 3000, 3
    frames = described_frames(n)
    for number in range(n_files):
        ids = {"SOPInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.3.{number}"}
        pixels = np.zeros((n, 2, 2), np.int16)
        ds = make_enhanced(pixels, frames, sop_class=ENHANCED_MR, Modality="MR", **ids)
        (tmp_path / f"{number}.dcm").write_bytes(to_bytes(ds))
    del ds, frames
    files = list(index.list_sources([str(tmp_path)], exclude=()))
    with traced() as peak:
        found = index.read_instances(files)
        indexing = peak()
    assert len(found) == n_files
    headers = sum(one.header_bytes for one in found)
    every = n * n_files
    counted = plan.index_bytes(n_files, every) - plan.index_bytes(n_files)
    assert n * plan.memory.FACTS_BYTES // 2 < indexing < counted + headers
    with traced() as peak:
        made = plan.plan_instances(
            found, Settings(), policy=load_policy("research"), key=key
        )
        planning = peak()
    assert [len(volume.frames) for volume in made.volumes] == [n] * n_files
    bound = plan.bucket_bytes(n_files, every) - plan.BASE_BYTES
    assert bound / 4 < planning < bound
    packed = max(len(one.frame_facts) for one in found) / n
    assert 40 < packed < plan.memory.PACKED_FRAME_BYTES


# --- a run of processes -------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A pile of input: how it is written, what workers may take, what comes out."""

    write: Callable[[Path], None]
    memory: str
    counts: dict[str, int]
    volumes: int
    driver: int = 600 * MIB


def multiframe(folder: Path, n: int, width: int) -> None:
    """Write an object of many frames, longer than what a worker may take."""
    pixels = np.zeros((1, width, width), np.int16)
    claim = {"pixels": pixels, "NumberOfFrames": n}
    write_claim(folder / "cine.dcm", nbytes=n * pixels.nbytes, **claim)
    write_slices(folder / "ct", 4, 16, first=900)


SHORT = {
    "mixed": Case(
        lambda p: (  # type: ignore[arg-type, return-value]
            write_slices(p / "ct", 60, 128),
            write_slices(p / "tiny", 60, 16, n_series=30, first=100),
            multiframe(p / "cine", 200, 512),
        ),
        "512MiB",
        {"stored": 125},
        33,
    ),
}
FULL = {
    "series of 1 GB": Case(
        lambda p: write_slices(p, 2000, 512), "1GiB", {"stored": 2000}, 1
    ),
    "volume of 1.5 GB": Case(
        lambda p: write_slices(p, 3000, 512), "1GiB", {"stored": 3000}, 1
    ),
    "20,000 tiny files of 4 series": Case(
        lambda p: write_slices(p, 20_000, 16, n_series=4), "1GiB", {"stored": 20_000}, 4
    ),
    "20,000 tiny files of 1,000 series": Case(
        lambda p: write_slices(p, 20_000, 16, n_series=1000),
        "1GiB",
        {"stored": 20_000},
        1000,
    ),
    "2,000 one-slice series": Case(
        lambda p: write_slices(p, 2000, 64, n_series=2000),
        "512MiB",
        {"stored": 2000},
        2000,
    ),
    "multi-frame object of 2000 frames": Case(
        lambda p: multiframe(p, 2000, 512), "1GiB", {"stored": 5}, 2
    ),
}


def check(case: Case, folder: Path) -> tuple[dict[str, Any], Run]:
    """Convert by processes; hold what they took against what was stated."""
    source, store = folder / "in", folder / "o.zarr"
    case.write(source)
    run = run_measured("convert", source, store, "--json", "--memory", case.memory)
    assert run.code in (0, 8), run.err
    assert json.loads(run.out)["codes"] == case.counts
    parts = [part for _, part in Work(f"{store}.work").read_plans()]
    told = show.plan_document(parts, memory=pipeline.local_memory(case.memory))
    assert told["volumes"] == case.volumes
    assert told["task_memory_bytes"] <= told["worker_memory_bytes"]
    need = told["task_memory_bytes"], told["worker_memory_bytes"]
    assert show.memory_text(*need) in run.err
    assert max(run.workers) <= told["task_memory_bytes"]
    assert run.driver <= case.driver
    return told, run


def test_no_worker_takes_more_than_is_stated(tmp_path: Path):
    check(SHORT["mixed"], tmp_path)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FULL)
def test_no_worker_takes_more_than_is_stated_for_a_lot(
    tmp_path: Path, full: bool, name: str, capsys: pytest.CaptureFixture[str]
):
    if not full:
        pytest.skip("minutes; run with --full")
    told, run = check(FULL[name], tmp_path)
    bound, peak = told["task_memory_bytes"], max(run.workers)
    with capsys.disabled():
        print(
            f"\n{name}: bound {bound / 1e6:.0f} MB, a worker has "
            f"{told['worker_memory_bytes'] / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB "
            f"({peak / bound:.2f}), driver {run.driver / 1e6:.0f} MB"
        )
