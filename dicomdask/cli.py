"""The command line: options to one library call, then print."""

import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final, TypeVar

import click

import dicomdask
from dicomdask import show, steps, storage
from dicomdask.errors import DicomDaskError, NoDicomError, OptionError
from dicomdask.model import Settings
from dicomdask.pseudonym import resolve_key
from dicomdask.tasks.commit import missing_tasks
from dicomdask.verify import verify as run_verify
from dicomdask.work import Work

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REJECTED: Final = 8

PROFILES: Final = click.Choice(["slice", "balanced", "patch"])
IRREGULAR: Final = click.Choice(["split", "reject"])


# --- options, each declared once ----------------------------------------------

sources_argument = click.argument("sources", metavar="SRC...", nargs=-1, required=True)
store_argument = click.argument("store")
work_required = click.option(
    "--work", required=True, help="The private directory of identified intermediates."
)
work_option = click.option(
    "--work", help="The private work directory.  [default: STORE.work]"
)
key_option = click.option(
    "--key-file",
    help="The key of the pseudonyms.  [default: $DICOMDASK_KEY, or a key that is made "
    "in the work directory]",
)
scheduler_option = click.option(
    "--scheduler",
    help="synchronous, threads, processes, tcp://HOST:PORT or a scheduler file.  "
    "[default: a local cluster fitted to the machine]",
)
memory_option = click.option(
    "--memory", help="What one local worker may take, such as 4GiB."
)
policy_option = click.option(
    "--policy",
    default="research",
    show_default=True,
    help="What becomes of each element: research (Basic Profile, dates shifted), "
    "basic (dates go) or none.",
)
option_option = click.option(
    "--option", "options", multiple=True, help="An option of PS3.15 Annex E besides."
)
trust_option = click.option(
    "--trust-pixels",
    multiple=True,
    metavar="MODALITY",
    help="A modality whose pixels you know to hold no text, such as DX.",
)
profile_option = click.option(
    "--profile",
    type=PROFILES,
    default="balanced",
    show_default=True,
    help="How the dataset will be read most.",
)
irregular_option = click.option(
    "--on-irregular",
    type=IRREGULAR,
    default="split",
    show_default=True,
    help="What becomes of slices that are not evenly spaced.",
)
where_option = click.option(
    "--where", help="Only instances for which this holds: \"Modality == 'CT'\"."
)
limit_option = click.option("--limit", type=int, help="At most so many volumes.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show the traceback of an error."
)


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


settings_options = _together(
    policy_option,
    option_option,
    trust_option,
    profile_option,
    irregular_option,
    where_option,
    limit_option,
)
run_options = _together(scheduler_option, memory_option, verbose_option)


def _settings(options: dict[str, Any]) -> Settings:
    """Take what settings are made of out of a command's options."""
    return Settings(
        policy=options.pop("policy"),
        options=tuple(options.pop("options")),
        trusted_pixels=tuple(options.pop("trust_pixels")),
        profile=options.pop("profile"),
        on_irregular=options.pop("on_irregular"),
        where=options.pop("where"),
    )


# --- errors and progress ------------------------------------------------------


def reports_errors(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn an error into one sentence and an exit code."""

    @wraps(command)
    def run(*args: Any, verbose: bool = False, **options: Any) -> None:
        try:
            code = command(*args, **options)
        except Exception as error:  # noqa: BLE001 - no error leaves as a traceback
            if verbose:
                click.echo(traceback.format_exc(), nl=False, err=True)
            click.echo(f"dicomdask: {_sentence(error)}", err=True)
            is_usage = isinstance(error, OptionError | NoDicomError)
            code = EXIT_USAGE if is_usage else EXIT_FAILED
        sys.exit(code or EXIT_DONE)

    return run


def _sentence(error: Exception) -> str:
    """Say what happened; only our own errors are sure to hold no value."""
    if isinstance(error, DicomDaskError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; nothing is lost, run again"
    name = type(error).__name__
    return f"an unforeseen {name}; nothing is lost, run again, -v shows where"


class ProgressLine:
    """Progress with rate and time left on a terminal, plain lines otherwise."""

    def __init__(self) -> None:
        self._step = ""
        self._started = 0.0
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show how much of a step is done."""
        now = time.monotonic()
        if step != self._step:
            self._step, self._started = step, now
        seconds = now - self._started
        if self._is_terminal:
            ending = "\n" if done >= total else ""
            text = self._line(step, done, total, seconds)
            click.echo(f"\r\x1b[K{text}{ending}", nl=False, err=True)
        elif done >= total:
            click.echo(self._line(step, done, total, seconds), err=True)

    @staticmethod
    def _line(step: str, done: int, total: int, seconds: float) -> str:
        if step == "list":
            return f"list: {total} files"
        text = f"{step}: {done} of {total} parts"
        if done >= total:
            return f"{text}, {seconds:.1f} s"
        if not done or not seconds:
            return text
        rate = done / seconds
        return f"{text}, {rate:.1f} parts/s, {(total - done) / rate:.0f} s left"


# --- commands -----------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dicomdask.__version__)
def main() -> None:
    """Turn DICOM into a dataset that models can be trained on again and again."""


@main.command()
@sources_argument
@store_argument
@work_option
@key_option
@settings_options
@run_options
@click.option("--overwrite", is_flag=True, help="Remove the store and begin anew.")
@click.option("--dry-run", is_flag=True, help="Index and plan, and stop there.")
@json_option
@reports_errors
def convert(
    sources: tuple[str, ...],
    store: str,
    *,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    limit: int | None,
    **options: Any,
) -> int:
    """List, index, plan, encode and commit; resume and extend what is there."""
    settings = _settings(options)
    if dry_run and overwrite:
        raise OptionError("--dry-run writes nothing; leave --overwrite out")
    session = steps.prepare(
        sources,
        store,
        settings,
        limit=limit,
        overwrite=overwrite,
        progress=ProgressLine(),
        **options,
    )
    with session:
        if dry_run:
            return _print_plan(session.work, as_json=as_json)
        summary = steps.finish(session)
    return _print_summary(summary, as_json=as_json)


def _print_plan(work: Work, *, as_json: bool) -> int:
    document = show.plan_document(list(work.read_plans().values()))
    _print(document, show.plan_text(document), as_json=as_json)
    return EXIT_DONE


def _print(document: Any, text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(document, indent=1, default=str) if as_json else text)


def _print_summary(summary: steps.Summary, *, as_json: bool) -> int:
    commit = summary.commit
    text = show.info_text(commit, summary.store)
    if not summary.is_new:
        text += f"\n\nnothing new: commit {commit.n} stands"
    text += (
        f"\n\nnext: dicomdask info {summary.store}"
        f"\n      dicomdask verify {summary.store} --work {summary.work}"
    )
    document = show.info_document(commit, summary.store) | {
        "is_new": summary.is_new,
        "n_indexed": summary.n_indexed,
        "n_encoded": summary.n_encoded,
    }
    _print(document, text, as_json=as_json)
    return EXIT_REJECTED if commit.counts.get("rejected") else EXIT_DONE


@main.command()
@sources_argument
@work_required
@key_option
@run_options
@reports_errors
def index(sources: tuple[str, ...], work: str, **options: Any) -> int:
    """List the sources and read the headers of what is new."""
    exclude = (storage.require_local(work),)
    n_files = steps.count_files(sources, exclude=exclude)
    session = steps.open_session(
        work, create=True, n_files=n_files, progress=ProgressLine(), **options
    )
    with session:
        n_indexed = steps.index(session, sources, exclude=exclude)
    click.echo(f"{n_indexed} files read into the index of {work}")
    return EXIT_DONE


@main.command()
@store_argument
@work_required
@key_option
@settings_options
@run_options
@json_option
@reports_errors
def plan(
    store: str, work: str, *, as_json: bool, limit: int | None, **options: Any
) -> int:
    """Decide volumes, arrays and tasks: JSON in WORK/plan to read or edit."""
    settings = _settings(options)
    with steps.open_session(work, progress=ProgressLine(), **options) as session:
        steps.set_target(session, store, settings, limit=limit)
        steps.make_plan(session)
        return _print_plan(session.work, as_json=as_json)


def _parse_range(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise click.BadParameter("write it like 0:100")
    return int(start), int(stop)


@main.command()
@work_required
@key_option
@click.option(
    "--task-range",
    callback=_parse_range,
    help="Only these tasks of the plan, such as 0:100: for array jobs.",
)
@run_options
@reports_errors
def encode(work: str, *, task_range: tuple[int, int] | None, **options: Any) -> int:
    """Decode, de-identify and write the tasks that have no receipt yet."""
    with steps.open_session(work, progress=ProgressLine(), **options) as session:
        done = steps.encode(session, task_range=task_range)
        plans = session.work.read_plans()
        left = len(missing_tasks(session.work, session.key, plans))
    click.echo(f"{done} tasks encoded, {left} left")
    return EXIT_DONE if task_range or not left else EXIT_FAILED


@main.command()
@work_required
@key_option
@verbose_option
@json_option
@reports_errors
def commit(work: str, *, as_json: bool, **options: Any) -> int:
    """Make what is encoded visible to readers, all at once."""
    with steps.open_session(work, **options) as session:
        summary = steps.commit(session)
    _print_summary(summary, as_json=as_json)
    return EXIT_DONE


@main.command()
@store_argument
@json_option
@verbose_option
@reports_errors
def info(store: str, *, as_json: bool) -> int:
    """Show what is in a dataset: sizes, modalities, outcomes by code."""
    dataset = dicomdask.open_dataset(store)
    found = dataset.commit
    document = show.info_document(found, dataset.store)
    _print(document, show.info_text(found, dataset.store), as_json=as_json)
    return EXIT_DONE


@main.command()
@store_argument
@work_option
@click.option("--all", "everything", is_flag=True, help="Every frame, not a sample.")
@click.option("--sample", default=200, show_default=True, help="How many frames.")
@click.option("--seed", default=0, show_default=True, help="Decides the sample.")
@json_option
@verbose_option
@reports_errors
def verify(
    store: str,
    work: str | None,
    *,
    everything: bool,
    sample: int,
    seed: int,
    as_json: bool,
) -> int:
    """Re-read a dataset by an independent path and compare it with the sources."""
    target = storage.require_local(store)
    steps.require_dataset(target)
    directory = Work(storage.require_local(work or f"{target}.work"))
    job = directory.require_job() if work else directory.read_job()
    report = run_verify(
        target,
        work=directory if job else None,
        key=resolve_key(job.key) if job else None,
        sample=None if everything else sample,
        seed=seed,
    )
    document = {name: getattr(report, name) for name in report.__slots__}
    _print(document, show.verify_text(report), as_json=as_json)
    return EXIT_FAILED if report.problems else EXIT_DONE


@main.command()
@click.argument("store", required=False)
@scheduler_option
@verbose_option
@reports_errors
def demo(store: str | None, scheduler: str | None) -> int:
    """Run the main job on the DICOM files that ship inside pydicom."""
    import pydicom  # noqa: PLC0415 - only the demo asks where its files are

    source = Path(pydicom.__file__).parent / "data" / "test_files"
    target = store or str(Path(mkdtemp(prefix="dicomdask-")) / "demo.zarr")
    click.echo(f"converting the DICOM files in {source}", err=True)
    summary = dicomdask.convert(
        str(source), target, scheduler=scheduler, progress=ProgressLine()
    )
    _print_summary(summary, as_json=False)
    volumes = dicomdask.open_dataset(target).volumes
    largest = volumes.sort_values("n_frames").iloc[-1]
    shape = "x".join(map(str, largest["shape"]))
    click.echo(
        "\nread it back in Python:\n"
        "  import dicomdask\n"
        f"  ds = dicomdask.open_dataset({summary.store!r})\n"
        f"  ds.volumes                                    # {len(volumes)} rows\n"
        f"  ds.read({largest['volume_id']!r})   # {shape} voxels"
    )
    return EXIT_DONE
