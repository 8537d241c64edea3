"""Pages for people: what was blanked in what was written, for whoever releases it."""

from typing import Final

from dicomdask import storage
from dicomdask.dataset import open_dataset
from dicomdask.errors import OptionError
from dicomdask.report.frames import in_turn, read_frames
from dicomdask.report.page import Heading, page_html
from dicomdask.report.reported import Reported
from dicomdask.report.review import make_review
from dicomdask.report.reviewed import Reviewed
from dicomdask.report.sources import Sources, device_names
from dicomdask.report.stored import Stored
from dicomdask.report.written import Written
from dicomdask.tasks.record import read_record

__all__ = ["PAGE", "Reported", "Sources", "report_redactions"]

PAGE: Final = "redactions.html"
FOLDER: Final = "review"
"""Where the work directory holds pages that show or name what sources do."""


def report_redactions(
    store: str,
    output: str = PAGE,
    *,
    sources: Sources | None = None,
    before: bool = False,
) -> Reported:
    """Write a page of what was blanked in the pixels, the most doubtful first.

    Parameters
    ----------
    store
        A dataset, or a destination of `deidentify`; its tables and some of its frames
        are read.
    output
        Where the page goes: not into the store, where neither `forget` nor `vacuum`
        would find the pictures of a patient.
    sources
        The work directory: names of devices that the policy does not keep are read from
        there, and pictures before. The page is identified then; it goes into the work
        directory, whatever `output` says.
    before
        Whether to show each picture as it was too; needs `sources`.

    Raises
    ------
    OptionError
        If the page may not lie there, or pictures before are wanted without sources.
    StoreError
        If there is neither.
    ReadError, ShardError
        If it is damaged.
    """
    if before and sources is None:
        raise OptionError("pictures before need the work directory; name it by --work")
    reviewed = _open(storage.resolve(store))
    target = _target(reviewed.url, output, sources)
    names = device_names(reviewed, sources) if sources else {}
    about = reviewed.about
    review = make_review(reviewed.volumes, reviewed.redactions, names, unit=about.unit)
    shown = in_turn(review.groups)
    frames = read_frames(reviewed, shown, sources if before else None)
    heading = Heading(about, is_identified=sources is not None, has_before=before)
    data = page_html(heading, review, frames).encode("utf-8")
    with storage.room_at(target):
        if sources is None:
            storage.write(target, data)
        else:
            storage.make_private_folder(storage.join(sources.work.url, FOLDER))
            storage.write_private(target, data)
    return Reported(target, len(data), heading, review, len(frames))


def _open(url: str) -> Reviewed:
    if read_record(url) is None:
        return Stored(open_dataset(url))
    return Written(url)


def _target(store: str, output: str, sources: Sources | None) -> str:
    if sources is not None:
        return sources.work.path(FOLDER, PAGE)
    target = storage.resolve(output)
    if storage.join(target, "").startswith(storage.join(store, "")):
        raise OptionError(
            "the page holds pictures of patients, which forget would not find in the "
            "store; write it elsewhere with -o"
        )
    return target
