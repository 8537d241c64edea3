"""What commands print: documents, progress, and errors as one sentence."""

import json
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from dicomdask import show, steps, storage
from dicomdask.errors import DicomDaskError, NoDicomError, OptionError
from dicomdask.work import Work

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REJECTED: Final = 8
EXIT_STOPPED: Final = 130
"""What shells expect of a command that Ctrl-C ended."""

CLEAR: Final = "\r\x1b[K"
"""Empties the line of a terminal."""
QUIET_SECONDS: Final = 30.0
"""How long a stage says nothing where its lines go to a file."""


def reports_errors(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn an error into one sentence and an exit code."""

    @wraps(command)
    def run(*args: Any, verbose: bool = False, **options: Any) -> None:
        try:
            code = command(*args, **options)
        except KeyboardInterrupt:
            _complain("stopped; what is done is kept: run the same command again")
            code = EXIT_STOPPED
        except BrokenPipeError:  # whoever reads has enough: `| head`
            raise
        except Exception as error:  # noqa: BLE001 - no error leaves as a traceback
            if verbose:
                click.echo(traceback.format_exc(), nl=False, err=True)
            _complain(_sentence(error))
            is_usage = isinstance(error, OptionError | NoDicomError)
            code = EXIT_USAGE if is_usage else EXIT_FAILED
        sys.exit(code or EXIT_DONE)

    return run


def _complain(sentence: str) -> None:
    """Print a sentence in the place of a line of progress that is not over."""
    begin = CLEAR if sys.stderr.isatty() else ""
    click.echo(f"{begin}dicomdask: {sentence}", err=True)


def _sentence(error: Exception) -> str:
    """Say what happened; only our own errors are sure to hold no value."""
    if isinstance(error, DicomDaskError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; nothing is lost, run again"
    name = type(error).__name__
    return f"an unforeseen {name}; nothing is lost, run again, -v shows where"


class ProgressLine:
    """One updating line on a terminal; plain lines now and then otherwise."""

    def __init__(self) -> None:
        self._shown = ("", 0.0)
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, progress: steps.Progress) -> None:
        """Show how far a stage is."""
        text = show.progress_text(progress)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1  # a wrapped line stays
            ending = "\n" if progress.is_over else ""
            cut = text if progress.is_over else text[:width]
            click.echo(f"{CLEAR}{cut}{ending}", nl=False, err=True)
        elif progress.is_over or self._is_due(progress):
            click.echo(text, err=True)

    def _is_due(self, progress: steps.Progress) -> bool:
        """Return whether a stage has been silent for long; its start is no news."""
        stage, seconds = self._shown
        last = seconds if stage == progress.stage and seconds <= progress.seconds else 0
        if progress.seconds - last < QUIET_SECONDS:
            return False
        self._shown = (progress.stage, progress.seconds)
        return True


def print_plan(work: Work, *, memory: int | None, as_json: bool) -> int:
    """Print what a plan comes to, and return the exit code."""
    parts = (part for _, part in work.read_plans())
    document = show.plan_document(parts, memory=memory)
    print_document(document, show.plan_text(document), as_json=as_json)
    return EXIT_DONE


def print_document(document: Any, text: str, *, as_json: bool) -> None:
    """Print a document as JSON, or what people read instead."""
    click.echo(json.dumps(document, indent=1, default=str) if as_json else text)


def print_summary(summary: steps.Summary, *, as_json: bool) -> int:
    """Print what a run came to, and return the exit code."""
    commit = summary.commit
    text = show.info_text(commit, summary.store, width=terminal_width())
    if not summary.is_new:
        text += f"\n\nnothing new: commit {commit.n} stands"
    if summary.stages:
        text += "\n\n" + "\n".join(show.stages_lines(summary.stages))
    has_rejected = bool(commit.counts.get("rejected"))
    place = place_words(summary.store, summary.work)
    look = f"{place} --files rejected" if has_rejected else shlex.quote(summary.store)
    text += f"\n\nnext: dicomdask info {look}\n      dicomdask verify {place}"
    document = show.info_document(commit, summary.store) | {
        "is_new": summary.is_new,
        "n_indexed": summary.n_indexed,
        "n_encoded": summary.n_encoded,
        "stages": show.stages_document(summary.stages),
    }
    print_document(document, text, as_json=as_json)
    return EXIT_REJECTED if has_rejected else EXIT_DONE


def place_words(store: str, work: str) -> str:
    """Return a store for a shell, and its work directory where that is no default."""
    place = shlex.quote(store)
    if storage.is_local(store) and steps.default_work(store, None) == work:
        return place
    return f"{place} --work {shlex.quote(work)}"


def terminal_width() -> int | None:
    """Return how many characters a line has; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
