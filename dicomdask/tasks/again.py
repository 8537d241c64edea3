"""Again: files that are cleaned anew, since their series grew and its face with it.

A mask is made of a whole volume. When files are added to its series, those that were
written before have other masks, and some have one for the first time.
"""

from collections.abc import Collection, Iterable
from typing import Final

from dicomdask import storage, tables
from dicomdask.model import SourceFile
from dicomdask.tasks.masks import RENEWED, masks_work
from dicomdask.work import Work

FOLDER: Final = "again"


def note_again(work: Work, targets: Iterable[str]) -> None:
    """Note in targets which of their files have other masks than before.

    Parameters
    ----------
    targets
        The URLs of what the work directory holds of them.
    """
    folder = masks_work(work).path(RENEWED)
    names = storage.list_names(folder)
    urls = {one.url for name in names for one in _read(storage.join(folder, name))}
    known = [
        one for one in targets if storage.list_names(storage.join(one, "receipts"))
    ]
    for part in work.manifest_parts() if urls and known else ():
        files = {one for one in work.read_manifest(part) if one.url in urls}
        for target in known if files else ():
            url = _url(target, part)
            every = sorted(files | set(_read(url)), key=lambda one: one.url)
            with storage.room_at(work.url):
                storage.write(url, tables.records_to_parquet(SourceFile, every))
    storage.remove_all([storage.join(folder, name) for name in names])


def read_again(target: str, part: str) -> set[str]:
    """Return the URLs of the files of a manifest part that are cleaned anew."""
    return {one.url for one in _read(_url(target, part))}


def parts_again(target: str) -> set[str]:
    """Return the manifest parts in which files are cleaned anew."""
    names = storage.list_names(storage.join(target, FOLDER))
    return {name.removesuffix(".parquet") for name in names}


def end_again(target: str, parts: Collection[str]) -> None:
    """Note that all files of some manifest parts are as their masks are."""
    storage.remove_all([_url(target, part) for part in parts])


def _url(target: str, part: str) -> str:
    return storage.join(target, FOLDER, f"{part}.parquet")


def _read(url: str) -> list[SourceFile]:
    try:
        return tables.records_from_parquet(SourceFile, storage.read(url))
    except FileNotFoundError:
        return []
