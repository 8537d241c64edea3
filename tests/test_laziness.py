"""Building opens nothing and computes nothing; reading needs no DICOM and no Dask."""

import subprocess
import sys
from dataclasses import fields

import dask
import pytest

import dicomdask
from dicomdask import header, pipeline, storage
from dicomdask.errors import SourceError
from dicomdask.model import Instance, column_name
from tests.builders import make_series, write_series

READERS = ("read", "open_blocks")
HEAVY = ("dask", "distributed", "pydicom")


@pytest.fixture
def opened(monkeypatch):
    """Return the URLs that are opened, and the graphs that are computed."""
    found = []

    def watch(room, name, note):
        original = getattr(room, name)

        def call(*args, **options):
            found.append(note(args))
            return original(*args, **options)

        monkeypatch.setattr(room, name, call)

    for name in READERS:
        watch(storage, name, lambda args: args[0])
    watch(header, "read_instance", lambda args: "a header")
    watch(dask, "compute", lambda args: "a graph")
    return found


def get_partitions(opened):
    """Return a Dask `get` that tells."""

    def get(graph, keys, **options):
        opened.append("a graph")
        return dask.get(graph, keys, **options)

    return get


def test_index_opens_files_only_when_computed(series, opened):
    bag = dicomdask.index(str(series))
    assert opened == []
    found = bag.compute(scheduler="synchronous")
    assert len(found) == 5
    assert sorted(url for url in opened if "/" in url) == sorted(
        str(path) for path in series.iterdir()
    )


def test_many_files_become_few_partitions(tmp_path, opened):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(600):
        (folder / f"{number}.txt").touch()
    assert dicomdask.index(str(folder)).npartitions == 3
    assert opened == []


def test_index_of_something_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="no such source"):
        dicomdask.index(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["index", "resolve", "plan", "encode"])
def test_bags_are_wired_without_opening_anything(name, store, opened):
    elements = [("00000", 0, 1)] if name == "encode" else ["000000"]
    build = getattr(pipeline, f"{name}_bag")
    with dask.config.set(scheduler=get_partitions(opened)):
        bag = build(elements, work_url=f"{store}.work")
        assert len(bag.to_delayed()) == 1
        assert opened == []


def test_a_bag_over_the_work_of_another_machine_can_be_built():
    bag = pipeline.encode_bag([("00000", 0, 9), ("00001", 0, 2)], work_url="/nowhere")
    assert bag.npartitions == 2


def test_index_dataframe_is_lazy_and_typed(store, opened):
    with dask.config.set(scheduler=get_partitions(opened)):
        frame = dicomdask.index_dataframe(f"{store}.work")
        assert opened == []
    assert list(frame.columns) == [column_name(one.name) for one in fields(Instance)]
    assert str(frame["Rows"].dtype) == "Int64"
    assert str(frame["RescaleSlope"].dtype) == "float64"
    rows = frame.compute(scheduler="synchronous")
    assert len(rows) == 5
    assert rows["Modality"].tolist() == ["CT"] * 5
    assert rows.dtypes.equals(frame.dtypes)
    assert not [url for url in opened if url.endswith(".dcm")]


def test_index_dataframe_of_several_series(tmp_path, convert):
    for number in (1, 2, 3):
        made = make_series(2, SeriesInstanceUID=f"1.2.3.{number}")
        write_series(tmp_path / "in" / str(number), made)
    # The slices of the three series share their SOP Instance UIDs and their pixels.
    convert(tmp_path / "in", tmp_path / "store")
    frame = dicomdask.index_dataframe(f"{tmp_path / 'store'}.work")
    found = frame.groupby("SeriesInstanceUID").size().compute(scheduler="synchronous")
    assert found.to_dict() == {f"1.2.3.{number}": 2 for number in (1, 2, 3)}


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_loads_nothing_heavy():
    code = "import sys, dicomdask; print(*sys.modules)"
    assert not set(HEAVY) & set(run_python(code))


@pytest.mark.parametrize("values", ["stored", "modality"])
def test_reading_loads_neither_dask_nor_pydicom(store, values):
    code = f"""
import sys, dicomdask
ds = dicomdask.open_dataset({str(store)!r})
for volume_id in ds.volumes.volume_id:
    assert ds.read(volume_id, values={values!r}).shape == (5, 16, 12)
ds.frames, ds.instances, ds.inputs
print(*sys.modules)
"""
    assert not set(HEAVY) & set(run_python(code))


def test_the_package_says_what_it_lacks():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dicomdask.nothing  # noqa: B018
