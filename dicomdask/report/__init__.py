"""Pages for people: what was blanked in a dataset, for whoever releases it."""

from typing import Final

from dicomdask import storage
from dicomdask.dataset import Dataset
from dicomdask.errors import OptionError
from dicomdask.report.frames import in_turn, read_frames
from dicomdask.report.page import Heading, page_html
from dicomdask.report.reported import Reported
from dicomdask.report.review import VOLUME_COLUMNS, make_review
from dicomdask.report.sources import Sources, device_names

__all__ = ["PAGE", "Reported", "Sources", "report_redactions"]

PAGE: Final = "redactions.html"
FOLDER: Final = "review"
"""Where the work directory holds pages that show or name what sources do."""

CODES: Final = ("burned-in-risk", "unclean-pixels")


def report_redactions(
    dataset: Dataset,
    output: str = PAGE,
    *,
    sources: Sources | None = None,
    before: bool = False,
) -> Reported:
    """Write a page of what was blanked in the pixels, the most doubtful first.

    Parameters
    ----------
    dataset
        The dataset; its tables and some of its frames are read.
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
    ReadError, ShardError
        If the dataset is damaged.
    """
    if before and sources is None:
        raise OptionError("pictures before need the work directory; name it by --work")
    target = _target(dataset.store, output, sources)
    volumes = dataset.volumes[list(VOLUME_COLUMNS)]
    names = device_names(dataset, volumes, sources) if sources else {}
    review = make_review(volumes, dataset.redactions, names)
    shown = in_turn(review.groups)
    frames = read_frames(dataset, shown, sources if before else None)
    heading = _heading(dataset, sources, before=before)
    data = page_html(heading, review, frames).encode("utf-8")
    with storage.room_at(target):
        if sources is None:
            storage.write(target, data)
        else:
            storage.make_private_folder(storage.join(sources.work.url, FOLDER))
            storage.write_private(target, data)
    return Reported(target, len(data), heading, review, len(frames))


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


def _heading(dataset: Dataset, sources: Sources | None, *, before: bool) -> Heading:
    commit = dataset.commit
    rejected = {code: commit.codes[code] for code in CODES if code in commit.codes}
    return Heading(
        name=dataset.store.rstrip("/").rsplit("/", 1)[-1],
        commit=commit.n,
        created=commit.created,
        policy=str(commit.policy["name"]),
        codes=tuple(str(code) for code, _ in commit.policy["codes"]),
        rejected=rejected,
        is_identified=sources is not None,
        has_before=before,
    )
