"""Faces in every kind of file and on every kind of machine; in arrays and in DICOM."""

from functools import cache

import distributed
import fsspec
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

import dicomdask
from tests import heads
from tests.builders import to_bytes, write_series
from tests.faults import hooks
from tests.faults.run import Server
from tests.test_multiframe import (
    ENHANCED_CT,
    ENHANCED_MR,
    frame_group,
    groups,
    item,
    make_enhanced,
    rescale,
)

pytestmark = pytest.mark.timeout(600)
CLEAN = {"options": ["clean-faces"]}
SHIFT = {"CT": 1024, "T1": 0}
KILLED = -9


@cache
def head(contrast="CT"):
    return heads.scan(contrast, spacing=(8.0, 4.0, 4.0))


@pytest.fixture
def make(tmp_path, key_file):
    """Return what writes both forms: the arrays of a store, and files by position."""

    def both(**options):
        common = {"key_file": str(key_file), "scheduler": "synchronous", **options}
        dicomdask.convert(str(tmp_path / "in"), str(tmp_path / "a"), **CLEAN, **common)
        found = dicomdask.deidentify(
            str(tmp_path / "in"), str(tmp_path / "out"), **CLEAN, **common
        )
        assert set(found.codes) == {"stored"}
        ds = dicomdask.open_dataset(str(tmp_path / "a"))
        [row] = ds.volumes.itertuples()
        assert row.faces == "cleaned"
        paths = sorted((tmp_path / "out").glob("*/*/*/*.dcm"))
        return np.asarray(ds.read(row.volume_id)), [*map(pydicom.dcmread, paths)]

    return both


def check_head(array, scan, shift):
    """Check that the nose is gone, and all of the brain is there."""
    before = scan.values + shift
    nose, brain = (scan.labels == part for part in (heads.NOSE, heads.BRAIN))
    assert np.array_equal(array[brain], before[brain])
    assert (array != before)[nose].mean() > 0.9


def enhanced(contrast, *, times=1):
    """Return the head as one object of many frames, some times over."""
    scan, step = head(contrast), 8.0
    low, n = scan.affine[:3, 3], len(scan.values)
    frames = []
    for t in range(times):
        for z in range(n):
            place = (float(low[0]), float(low[1]), round(float(low[2] + step * z), 6))
            told = item(StackID="1", InStackPositionNumber=z + 1)
            if times > 1:
                told.TemporalPositionIndex = t + 1
            frames.append(frame_group(place, FrameContentSequence=told))
    shared = groups(PixelMeasuresSequence=item(PixelSpacing=[4, 4], SliceThickness=8))
    if contrast == "CT":
        shared.PixelValueTransformationSequence = [rescale(1, -1024)]
    values = np.concatenate([scan.values + SHIFT[contrast]] * times)
    is_ct = contrast == "CT"
    return make_enhanced(
        np.ascontiguousarray(values),
        frames,
        sop_class=ENHANCED_CT if is_ct else ENHANCED_MR,
        shared=shared,
        Modality="CT" if is_ct else "MR",
    )


@pytest.mark.parametrize("contrast", ["CT", "T1"])
def test_objects_of_many_frames(tmp_path, make, contrast):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(to_bytes(enhanced(contrast)))
    array, [file] = make()
    check_head(array, head(contrast), SHIFT[contrast])
    assert np.array_equal(file.pixel_array, array)
    assert file.RecognizableVisualFeatures == "NO"


@pytest.mark.parametrize("contrast", ["CT", "T1"])
def test_an_object_of_many_times(tmp_path, make, contrast):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(to_bytes(enhanced(contrast, times=2)))
    array, [file] = make()
    assert array.shape == (2, *head(contrast).values.shape)
    for volume in array:
        check_head(volume, head(contrast), SHIFT[contrast])
    assert np.array_equal(file.pixel_array, array.reshape(file.pixel_array.shape))


def test_files_of_many_times(tmp_path, make):
    made = []
    for t in (1, 2):
        for ds in heads.slices(head("T1"), "T1", TemporalPositionIdentifier=t):
            ds.InstanceNumber += 1000 * t
            ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.{t}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            made.append(ds)
    write_series(tmp_path / "in", made)
    array, files = make()
    assert array.shape == (2, *head("T1").values.shape)
    for volume in array:
        check_head(volume, head("T1"), 0)
    planes = {one.pixel_array.astype(array.dtype).tobytes() for one in files}
    assert planes == {plane.tobytes() for volume in array for plane in volume}


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_files(tmp_path, make, syntax):
    made = list(heads.slices(head(), "CT"))
    for ds in made:
        ds.compress(syntax, generate_instance_uid=False)
    write_series(tmp_path / "in", made)
    array, files = make()
    check_head(array, head(), 1024)
    planes = {one.pixel_array.astype(array.dtype).tobytes() for one in files}
    assert planes == {plane.tobytes() for plane in array}
    assert {one.file_meta.TransferSyntaxUID for one in files} == {syntax}


def lossy(scan, *, level=95):
    """Yield a head in MR as JPEG with loss, of 8 bits."""
    for ds in heads.slices(scan, "T1", BitsStored=8, HighBit=7):
        plane = np.clip(ds.pixel_array, 0, 255).astype(np.uint8)
        ds.BitsAllocated, ds.PixelRepresentation = 8, 0
        ds.LossyImageCompression = "01"
        ds.PixelData = encapsulate([imagecodecs.jpeg8_encode(plane, level)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        yield ds


def test_files_with_loss_are_written_without(tmp_path, make):
    """Single pixels go, not units of 8 x 8; the header still tells of the loss."""
    made = list(lossy(head("T1")))
    write_series(tmp_path / "in", made)
    array, files = make()
    planes = {one.pixel_array.astype(array.dtype).tobytes() for one in files}
    assert planes == {plane.tobytes() for plane in array}
    assert {one.file_meta.TransferSyntaxUID for one in files} == {JPEGLosslessSV1}
    assert {one.LossyImageCompression for one in files} == {"01"}
    before = np.stack([one.pixel_array for one in made])
    brain, nose = (head("T1").labels == part for part in (heads.BRAIN, heads.NOSE))
    assert np.array_equal(array[brain], before[brain])
    assert (array != before)[nose].mean() > 0.9


# --- other machines -------------------------------------------------------------


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.glob("*/*/*/*.dcm")}


@pytest.fixture
def here(tmp_path, key_file):
    """Return the de-identified files of a head, written by this process."""
    write_series(tmp_path / "in", heads.slices(head(), "CT"))
    run(tmp_path / "in", tmp_path / "here", key_file)
    found = content(tmp_path / "here")
    assert len(found) == len(head().values)
    return found


def run(source, dest, key_file, **options):
    return dicomdask.deidentify(
        *(str(source), str(dest)),
        **{"key_file": str(key_file), "scheduler": "synchronous", **CLEAN, **options},
    )


def test_two_worker_processes(tmp_path, key_file, here):
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False),
    ):
        address = cluster.scheduler_address
        options = {"scheduler": address, "insecure_scheduler": True}
        run(tmp_path / "in", tmp_path / "out", key_file, **options)
    assert content(tmp_path / "out") == here


def test_an_object_store(tmp_path, s3, key_file, here):
    bucket = fsspec.filesystem("s3")
    for path in sorted((tmp_path / "in").iterdir()):
        bucket.pipe_file(f"{s3}/in/{path.name}", path.read_bytes())
    run(f"{s3}/in", f"{s3}/out", key_file, work=f"{s3}/work")
    names = [one for one in bucket.find(f"{s3}/out") if one.endswith(".dcm")]
    assert sorted(map(bucket.cat_file, names)) == sorted(here.values())
    for path in sorted((tmp_path / "in").glob("*1.dcm")):
        bucket.rm_file(f"{s3}/in/{path.name}")
    assert run(f"{s3}/in", f"{s3}/out", key_file, work=f"{s3}/work").n_done == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


def test_a_run_that_was_killed_goes_on(tmp_path, server, key_file, here):
    """At each kind of write of masks, files and rows."""
    words = ["deidentify", tmp_path / "in", "", "--work", "", "--key-file", key_file]
    words += ["--option", "clean-faces", "--scheduler", "synchronous"]
    log = tmp_path / "log"

    def ended(place, **faults):
        words[2], words[4] = place / "store", place / "work"
        log.unlink(missing_ok=True)
        return server.run(words, hooks.Faults(str(log), **faults))

    assert ended(tmp_path / "first").status == 0
    lines = log.read_text().splitlines()
    kinds = [
        line
        for line in dict.fromkeys(lines)
        if line.startswith("before") and ("/faces/" in line or "files/" in line)
    ]
    assert len(kinds) > 5
    place = tmp_path / "again"
    for line in kinds:
        assert ended(place, at=line).status == KILLED, line
    assert ended(place).status == 0
    assert content(place / "store") == content(tmp_path / "first" / "store")
    assert sorted(content(place / "store").values()) == sorted(here.values())
