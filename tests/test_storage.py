"""What each kind of place promises, and what is listed of a local one."""

import os
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from dicomdask import storage
from dicomdask.errors import SourceError, StoreError
from dicomdask.storage import NOT_A_FILE, Ranges


def race(n, function):
    """Run a function n times at once; return results, exceptions as values."""

    def attempt(number):
        try:
            return function(number)
        except OSError as error:
            return error

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(attempt, range(n)))


class StoreContract:
    """What every place that holds objects promises."""

    @pytest.fixture
    def base(self) -> str:
        raise NotImplementedError

    def test_what_is_written_is_read(self, base):
        url = storage.join(base, "a", "b", "object")
        assert not storage.exists(url)
        storage.write(url, b"first")
        assert storage.exists(url)
        assert storage.read(url) == b"first"

    def test_write_replaces(self, base):
        url = storage.join(base, "object")
        storage.write(url, b"the first, a long one")
        storage.write(url, b"second")
        assert storage.read(url) == b"second"

    def test_write_takes_no_bytes_at_all(self, base):
        url = storage.join(base, "empty")
        storage.write(url, b"")
        assert storage.read(url) == b""

    def test_what_is_not_there_is_not_found(self, base):
        with pytest.raises(FileNotFoundError):
            storage.read(storage.join(base, "nothing"))
        with pytest.raises(FileNotFoundError):
            Ranges(base).get_range("nothing", 0, 1)
        with pytest.raises(FileNotFoundError):
            Ranges(base).get_tail("nothing", 1)

    def test_create_makes_what_is_not_there(self, base):
        url = storage.join(base, "commits", "0.json")
        storage.create(url, b"mine")
        assert storage.read(url) == b"mine"

    def test_create_leaves_what_is_there(self, base):
        url = storage.join(base, "object")
        storage.create(url, b"mine")
        with pytest.raises(FileExistsError):
            storage.create(url, b"yours")
        assert storage.read(url) == b"mine"

    def test_names_are_sorted_and_of_one_level(self, base):
        for name in ("10", "9", "below/deep"):
            storage.write(storage.join(base, name), b"x")
        assert storage.list_names(base) == ["10", "9", "below"]

    def test_no_folder_has_no_names(self, base):
        assert storage.list_names(storage.join(base, "nothing")) == []

    def test_remove_twice(self, base):
        url = storage.join(base, "object")
        storage.write(url, b"x")
        storage.remove(url)
        storage.remove(url)
        assert not storage.exists(url)

    def test_remove_all_of_many(self, base):
        names = [f"{number % 3}/{number}" for number in range(30)]
        for name in names:
            storage.write(storage.join(base, name), b"x")
        storage.remove_all([storage.join(base, name) for name in names[:-1]])
        assert [one.name for one in storage.list_below(base)] == [names[-1]]
        storage.remove_all([storage.join(base, name) for name in names])
        assert list(storage.list_below(base)) == []
        storage.remove_all([])

    def test_a_listing_tells_sizes_and_times_of_all_depths(self, base):
        before = time.time() - 5
        names = ["a", "b/c", "b/d/e/f/.g", "b/d/e/h", "i/j"]
        for size, name in enumerate(names):
            storage.write(storage.join(base, name), b"x" * size)
        found = sorted(storage.list_below(base))
        assert [(one.name, one.bytes) for one in found] == [
            (name, size) for size, name in enumerate(names)
        ]
        assert all(before < one.modified < time.time() + 5 for one in found)

    def test_empty_folders_go_and_others_stay(self, base):
        for name in ("a/b/c", "a/d"):
            storage.write(storage.join(base, name), b"x")
        storage.remove(storage.join(base, "a/b/c"))
        storage.remove_empty_folders(base)
        assert storage.list_names(storage.join(base, "a")) == ["d"]
        storage.remove(storage.join(base, "a/d"))
        storage.remove_empty_folders(storage.join(base, "a"))
        assert storage.list_names(base) == []

    def test_remove_tree_twice(self, base):
        storage.write(storage.join(base, "tree", "a", "b"), b"x")
        storage.write(storage.join(base, "other"), b"x")
        storage.remove_tree(storage.join(base, "tree"))
        storage.remove_tree(storage.join(base, "tree"))
        assert storage.list_names(base) == ["other"]

    def test_blocks_seek(self, base):
        url = storage.join(base, "object")
        storage.write(url, bytes(range(256)) * 1000)
        with storage.open_blocks(url) as file:
            assert file.read(4) == bytes(range(4))
            file.seek(200_001)
            assert file.read(1) == bytes([200_001 % 256])

    def test_ranges(self, base):
        storage.write(storage.join(base, "a", "object"), bytes(range(100)))
        ranges = Ranges(base)
        assert ranges.get_range("a/object", 10, 20) == bytes(range(10, 20))
        assert ranges.get_range("a/object", 90, 200) == bytes(range(90, 100))
        assert ranges.get_tail("a/object", 3) == bytes(range(97, 100))

    def test_a_tail_longer_than_the_object_is_all_of_it(self, base):
        storage.write(storage.join(base, "object"), b"short")
        assert Ranges(base).get_tail("object", 100) == b"short"

    def test_ranges_are_pickled_without_what_they_opened(self, base):
        storage.write(storage.join(base, "object"), b"content")
        ranges = Ranges(base)
        ranges.get_range("object", 0, 1)
        copy = pickle.loads(pickle.dumps(ranges))
        assert copy.get_tail("object", 7) == b"content"
        ranges.close()
        assert ranges.get_tail("object", 7) == b"content"

    def test_it_can_be_written_to(self, base):
        storage.make_private_folder(base)
        storage.require_writable(base)
        assert storage.list_names(base) == []


class TestLocal(StoreContract):
    @pytest.fixture
    def base(self, tmp_path: Path) -> str:
        return str(tmp_path / "base")

    def test_of_twenty_creators_one_wins(self, base):
        url = storage.join(base, "commits", "0.json")
        results = race(20, lambda k: storage.create(url, b"%d" % k))
        winners = [k for k, result in enumerate(results) if result is None]
        assert len(winners) == 1
        others = [result for result in results if result is not None]
        assert {type(result) for result in others} == {FileExistsError}
        assert storage.read(url) == b"%d" % winners[0]
        assert os.listdir(Path(url).parent) == ["0.json"]

    def test_a_reader_sees_the_old_or_the_new_object(self, base):
        url = storage.join(base, "object")
        contents = [bytes([k]) * 200_000 for k in range(4)]
        storage.write(url, contents[0])

        def act(number):
            if number % 2:
                storage.write(url, contents[number % 4])
            return storage.read(url)

        assert {found in contents for found in race(24, act)} == {True}

    def test_a_failed_write_leaves_the_old_object_and_nothing_else(
        self, base, monkeypatch
    ):
        url = storage.join(base, "object")
        storage.write(url, b"old")

        def fail(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(storage.local.os, "fsync", fail)
        for function in (storage.write, storage.create):
            with pytest.raises(OSError, match="No space"):
                function(url, b"new")
        assert storage.read(url) == b"old"
        assert os.listdir(base) == ["object"]

    def test_so_does_one_whose_target_is_a_folder(self, base):
        storage.write(storage.join(base, "folder", "object"), b"x")
        with pytest.raises(OSError, match="folder"):
            storage.write(storage.join(base, "folder"), b"new")
        with pytest.raises(FileExistsError):
            storage.create(storage.join(base, "folder"), b"new")
        assert os.listdir(base) == ["folder"]

    def test_and_one_that_is_interrupted(self, base, monkeypatch):
        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(storage.local.os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            storage.write(storage.join(base, "object"), b"new")
        assert os.listdir(base) == []

    def test_hidden_names_are_not_listed(self, base):
        storage.write(storage.join(base, ".object.tmp"), b"x")
        assert storage.list_names(base) == []

    def test_a_private_folder_is_closed_to_others(self, base):
        storage.make_private_folder(base)
        assert os.stat(base).st_mode & 0o777 == 0o700

    def test_a_folder_below_a_file_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreError, match="cannot be made"):
            storage.make_private_folder(str(tmp_path / "file" / "folder"))
        with pytest.raises(StoreError, match="cannot write below"):
            storage.require_writable(str(tmp_path / "file" / "folder"))


class TestMemory(StoreContract):
    @pytest.fixture
    def base(self) -> Iterator[str]:
        url = f"memory://{uuid.uuid4().hex}"
        yield url
        filesystem = fsspec.filesystem("memory")
        path = url.removeprefix("memory:/")
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


class TestRanges:
    @pytest.fixture
    def base(self, tmp_path: Path) -> str:
        for k in range(8):
            (tmp_path / f"{k}").write_bytes(bytes([k]) * 64)
        return str(tmp_path)

    @staticmethod
    def n_open(base):
        """Return how many descriptors lead below a folder."""
        links = []
        for entry in os.scandir("/proc/self/fd"):
            try:
                links.append(os.readlink(entry.path))
            except OSError:
                continue
        return sum(link.startswith(base) for link in links)

    @pytest.fixture(autouse=True)
    def needs_proc(self):
        if not os.path.isdir("/proc/self/fd"):
            pytest.skip("/proc/self/fd is not there: it lists the open files")

    def test_a_file_is_opened_once(self, base):
        ranges = Ranges(base)
        for start in range(50):
            ranges.get_range("3", start, start + 1)
            ranges.get_tail("3", 4)
        assert self.n_open(base) == 1

    def test_few_stay_open_and_none_after_the_reader(self, base):
        ranges = Ranges(base, max_open=3)
        for _ in range(3):
            for k in range(8):
                assert ranges.get_range(f"{k}", 0, 2) == bytes([k]) * 2
                assert self.n_open(base) <= 3
        del ranges
        assert self.n_open(base) == 0

    def test_threads_never_read_a_file_that_is_not_theirs(self, base):
        """Closing a file while another thread reads gives its number to the next."""
        ranges = Ranges(base, max_open=1)

        def read(number):
            k = number % 8
            return all(
                ranges.get_range(f"{k}", 0, 8) == bytes([k]) * 8 for _ in range(400)
            )

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            results = race(8, read)
        finally:
            sys.setswitchinterval(interval)
        assert results == [True] * 8

    def test_a_file_closed_in_the_middle_of_a_read(self, base, monkeypatch):
        """The same, with the other thread at the worst moment."""
        ranges, others = Ranges(base, max_open=1), []

        def disturbed(real):
            def read(*args):
                if not others:
                    other = threading.Thread(target=ranges.get_range, args=("1", 0, 8))
                    others.append(other)
                    other.start()
                    other.join(timeout=2)
                return real(*args)

            return read

        for name in ("pread", "preadv"):
            monkeypatch.setattr(storage.local.os, name, disturbed(getattr(os, name)))
        assert ranges.get_range("0", 0, 8) == b"\0" * 8
        for other in others:
            other.join()

    def test_threads_leave_no_file_open(self, base, monkeypatch):
        real = os.open

        def open_slowly(*args):
            time.sleep(0.01)
            return real(*args)

        monkeypatch.setattr(storage.ranges.os, "open", open_slowly)
        ranges = Ranges(base)
        race(16, lambda k: ranges.get_range(f"{k % 2}", 0, 8))
        ranges.close()
        assert self.n_open(base) == 0


class TestPaths:
    def test_urls_are_kept_but_for_their_end(self):
        assert storage.resolve("s3://bucket/export/") == "s3://bucket/export"

    def test_an_unknown_scheme_is_refused(self):
        with pytest.raises(StoreError, match=r"^nonsense:// is unknown"):
            storage.resolve("nonsense://bucket/export")

    def test_a_missing_package_is_named(self, monkeypatch):
        def missing(_):
            raise ImportError

        monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
        with pytest.raises(StoreError, match=r"^gs:// needs gcsfs; install it"):
            storage.resolve("gs://bucket/export")

    def test_a_password_is_refused_and_not_repeated(self):
        with pytest.raises(StoreError, match="holds a password") as caught:
            storage.resolve("ftp://someone:hushhush@host/export")
        assert "hushhush" not in str(caught.value)

    def test_local_paths_are_made_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert storage.resolve("a/../b") == f"{tmp_path}/b"
        assert storage.resolve(f"file://{tmp_path}/b/") == f"{tmp_path}/b"
        assert storage.resolve("memory://a/") == "memory://a"

    @pytest.mark.parametrize(
        "name", [b"plain", b"\xff\xfe", b"caf\xe9 %41", "größe".encode(), b"a b#c?d"]
    )
    def test_any_name_travels_as_text(self, name):
        path = os.fsdecode(b"/in/" + name)
        text = storage.encode_path(path)
        text.encode()
        assert storage.decode_path(text) == path

    def test_join(self):
        assert storage.join("/store/", "a", "b") == "/store/a/b"


# --- list ---------------------------------------------------------------------


def names_of(files, root):
    """Return what was listed, relative to a folder."""
    return [os.path.relpath(storage.decode_path(file.url), root) for file in files]


class TestList:
    @pytest.fixture
    def pile(self, tmp_path: Path) -> Path:
        """Return a folder of files at several depths."""
        root = tmp_path / "pile"
        for name in ("b.dcm", "a.dcm", "deep/er/c", ".hidden", "deep/.also/d"):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return root

    def listed(self, source, **options):
        return list(storage.list_files(str(source), **options))

    def test_a_file(self, pile):
        (file,) = self.listed(pile / "a.dcm")
        assert file.url == str(pile / "a.dcm")
        assert file.size == 5
        assert file.etag
        assert file.token == ""

    def test_a_folder_at_any_depth_hidden_names_too(self, pile):
        assert names_of(self.listed(pile), pile) == [
            ".hidden",
            "a.dcm",
            "b.dcm",
            "deep/.also/d",
            "deep/er/c",
        ]

    def test_a_glob_in_order(self, pile):
        found = self.listed(pile / "*.dcm")
        assert names_of(found, pile) == ["a.dcm", "b.dcm"]

    def test_a_glob_of_folders_lists_what_is_in_them(self, pile):
        assert names_of(self.listed(pile / "d*"), pile) == ["deep/.also/d", "deep/er/c"]

    def test_a_deep_glob_lists_every_file(self, pile):
        found = names_of(self.listed(pile / "**"), pile)
        assert set(found) == set(names_of(self.listed(pile), pile))

    def test_a_name_that_looks_like_a_glob_is_a_name(self, tmp_path):
        (tmp_path / "scan[1].dcm").write_bytes(b"x")
        (tmp_path / "scan1.dcm").write_bytes(b"x")
        found = self.listed(tmp_path / "scan[1].dcm")
        assert names_of(found, tmp_path) == ["scan[1].dcm"]

    @pytest.mark.parametrize("name", ["nothing", "nothing/*.dcm"])
    def test_nothing_there_is_an_error(self, tmp_path, name):
        with pytest.raises(SourceError, match="no such source"):
            self.listed(tmp_path / name)

    def test_the_store_and_the_work_directory_are_left_out(self, pile):
        (pile / "store.zarr").mkdir()
        (pile / "store.zarr" / "zarr.json").write_bytes(b"{}")
        (pile / "other").symlink_to(pile / "store.zarr")
        found = self.listed(
            pile, exclude=(str(pile / "store.zarr"), str(pile / "deep"))
        )
        assert names_of(found, pile) == [".hidden", "a.dcm", "b.dcm"]

    def test_a_loop_of_links_ends(self, pile):
        (pile / "deep" / "up").symlink_to(pile)
        (pile / "self").symlink_to("self")
        found = self.listed(pile)
        assert len(found) == 6
        assert [file.size for file in found if file.url.endswith("/self")] == [-1]

    def test_a_linked_folder_is_followed_once(self, pile, tmp_path):
        (tmp_path / "far").mkdir()
        (tmp_path / "far" / "e").write_bytes(b"e")
        (pile / "link1").symlink_to(tmp_path / "far")
        (pile / "link2").symlink_to(tmp_path / "far")
        found = names_of(self.listed(pile, within=(str(tmp_path / "far"),)), pile)
        assert [name for name in found if name.endswith("/e")] == ["link1/e"]

    def test_what_cannot_be_a_file_is_listed_without_a_size(self, tmp_path):
        (tmp_path / "broken").symlink_to(tmp_path / "nothing")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "whole").write_bytes(b"123")
        sizes = [file.size for file in self.listed(tmp_path)]
        assert sizes == [NOT_A_FILE, NOT_A_FILE, 3]
        assert self.listed(tmp_path / "broken")[0].size == NOT_A_FILE

    def test_so_is_a_folder_that_cannot_be_read(self, pile, monkeypatch):
        real = os.scandir

        def scandir(path):
            if str(path).endswith("deep"):
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(storage.walk.os, "scandir", scandir)
        (found,) = [f for f in self.listed(pile) if f.url.endswith("deep")]
        assert found.size == NOT_A_FILE

    def test_names_that_are_not_utf_8(self, tmp_path):
        name = b"caf\xe9.dcm"
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
        except OSError:
            pytest.skip("this file system holds only UTF-8 names")
        (file,) = self.listed(tmp_path)
        assert file.url.encode().startswith(b"file://")
        assert storage.read(file.url) == b"x"
        assert storage.describe(file.url) == file
        assert self.listed(file.url) == [file]
        with storage.open_blocks(file.url) as opened:
            assert opened.read() == b"x"

    def test_another_content_has_another_etag(self, pile):
        before = storage.describe(str(pile / "a.dcm"))
        assert storage.describe(str(pile / "a.dcm")) == before
        os.utime(pile / "a.dcm", ns=(1, 1))
        assert storage.describe(str(pile / "a.dcm")).etag != before.etag

    def test_a_file_that_is_gone_has_no_size(self, tmp_path):
        assert storage.describe(str(tmp_path / "gone")).size == NOT_A_FILE
