"""The commands that keep a dataset in order for years: vacuum and forget."""

from dataclasses import asdict
from typing import Any, TextIO

import click

import dicomdask
from dicomdask.cli.options import common_options, json_option, store_argument
from dicomdask.cli.output import (
    EXIT_DONE,
    EXIT_REJECTED,
    print_document,
    reports_errors,
)
from dicomdask.show.removals import forget_text, vacuum_text

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would go, and delete nothing."
)


@click.command()
@store_argument
@click.option(
    "--older-than",
    default="7d",
    show_default=True,
    metavar="AGE",
    help="How old what no recent commit names must be: 30m, 12h, 7d. Commits that are "
    "younger stay; so does the newest.",
)
@dry_run_option
@json_option
@common_options
@reports_errors
def vacuum(store: str, *, as_json: bool, **options: Any) -> int:
    """Delete what no recent commit names."""
    done = dicomdask.vacuum(store, **options)
    print_document(asdict(done), vacuum_text(done), as_json=as_json)
    return EXIT_DONE


@click.command()
@store_argument
@click.option(
    "--patient",
    "patients",
    multiple=True,
    metavar="ID",
    help="A PatientID, or the pseudonym that stands for it in the tables.",
)
@click.option(
    "--patient-file",
    type=click.File(encoding="utf-8-sig"),
    help="One a line; - reads them from standard input, so that they stand in no "
    "history of commands.",
)
@click.option("--issuer", help="Who issued the PatientIDs.  [default: whoever]")
@click.option(
    "--work", help="The private work directory.  [default: STORE.work, if it is there]"
)
@click.option(
    "--key-file",
    help="The key of the pseudonyms.  [default: $DICOMDASK_KEY, or that of the work "
    "directory]",
)
@click.option("--undo", is_flag=True, help="Let them come back with the next run.")
@dry_run_option
@json_option
@common_options
@reports_errors
def forget(
    store: str,
    *,
    patients: tuple[str, ...],
    patient_file: TextIO | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Remove patients everywhere at once, and keep them out of later runs."""
    lines = patient_file.read().splitlines() if patient_file else []
    names = [*patients, *(line for line in lines if line.strip())]
    done = dicomdask.forget(store, names, **options)
    text = forget_text(done, undo=options["undo"], dry_run=options["dry_run"])
    print_document(asdict(done), text, as_json=as_json)
    is_known = [one.was_forgotten or bool(one.matched) for one in done.patients]
    return EXIT_DONE if all(is_known) else EXIT_REJECTED
