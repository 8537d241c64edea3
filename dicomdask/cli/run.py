"""The commands that make a dataset, at once or step by step."""

from typing import Any, Final

import click

from dicomdask import steps, storage
from dicomdask.cli.options import (
    OPTION_NAMES,
    common_options,
    json_option,
    key_option,
    run_options,
    settings_options,
    sources_argument,
    store_argument,
    take_settings,
    work_option,
    work_required,
)
from dicomdask.cli.output import (
    EXIT_DONE,
    EXIT_FAILED,
    ProgressLine,
    print_plan,
    print_summary,
    reports_errors,
)
from dicomdask.errors import OptionError
from dicomdask.tasks.commit import missing_tasks

EXAMPLES: Final = f"""{OPTION_NAMES}

\b
Examples:
  dicomdask convert /data/export chest.zarr --dry-run
  dicomdask convert /data/export chest.zarr
  dicomdask convert /data/export ct.zarr --where "Modality == 'CT'"
  dicomdask convert /data/us us.zarr --option clean-pixels
  dicomdask convert s3://hospital/export s3://lab/a.zarr --work /private/a"""


@click.command(epilog=EXAMPLES)
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
    """Turn DICOM into a de-identified dataset; resume it, and add what is new.

    SRC is a folder, a file, a pattern in quotes, or a URL; STORE is the dataset, a
    folder or a URL. This is `index`, `plan`, `encode` and `commit` at once.
    """
    settings = take_settings(options)
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
            return print_plan(session.work, memory=session.task_memory, as_json=as_json)
        summary = steps.finish(session)
    return print_summary(summary, as_json=as_json)


@click.command()
@sources_argument
@work_required
@key_option
@run_options
@reports_errors
def index(sources: tuple[str, ...], work: str, **options: Any) -> int:
    """List the sources and read the headers of what is new."""
    exclude = (storage.resolve(work),)
    steps.require_files(sources, exclude=exclude)
    session = steps.open_session(work, create=True, progress=ProgressLine(), **options)
    with session:
        n_indexed = steps.index(session, sources, exclude=exclude)
    click.echo(f"{n_indexed} files read into the index of {work}")
    return EXIT_DONE


@click.command(epilog=OPTION_NAMES)
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
    settings = take_settings(options)
    with steps.open_session(work, progress=ProgressLine(), **options) as session:
        steps.set_target(session, store, settings, limit=limit)
        steps.make_plan(session)
        return print_plan(session.work, memory=session.task_memory, as_json=as_json)


def _parse_range(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise click.BadParameter("write it like 0:100")
    return int(start), int(stop)


@click.command()
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
    session = steps.open_session(
        work, progress=ProgressLine(), shared=task_range is not None, **options
    )
    with session:
        done = steps.encode(session, task_range=task_range)
        names = session.work.plan_names()
        left = len(missing_tasks(session.work, session.key, names))
    click.echo(f"{done} tasks encoded, {left} left")
    return EXIT_DONE if task_range or not left else EXIT_FAILED


@click.command()
@work_required
@key_option
@common_options
@json_option
@reports_errors
def commit(work: str, *, as_json: bool, **options: Any) -> int:
    """Make what is encoded visible to readers, all at once."""
    with steps.open_session(work, **options) as session:
        summary = steps.commit(session)
    print_summary(summary, as_json=as_json)
    return EXIT_DONE
