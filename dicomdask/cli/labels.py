"""The command that joins a table of labels to a dataset."""

from collections.abc import Iterable

import click

from dicomdask import show, steps
from dicomdask.cli.options import common_options, json_option, work_required
from dicomdask.cli.output import (
    EXIT_DONE,
    EXIT_REJECTED,
    print_document,
    reports_errors,
)
from dicomdask.errors import OptionError
from dicomdask.sheets import split_names


@click.command()
@click.argument("table", metavar="TABLE.csv")
@click.option(
    "--columns",
    multiple=True,
    required=True,
    metavar="KEYWORD[=NAME],...",
    help="What to join on: DICOM keywords, and the columns' names where they differ, "
    "such as PatientID=mrn,StudyInstanceUID.",
)
@work_required
@click.option("-o", "--output", required=True, help="Where the new table goes.")
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME,...",
    help="Other columns to copy as they are: labels.  [default: they are left out]",
)
@click.option("--keep-all", is_flag=True, help="Copy all other columns as they are.")
@click.option("--overwrite", is_flag=True, help="Replace the output.")
@click.option("--key-file", help="The key.  [default: where the dataset's key is]")
@json_option
@common_options
@reports_errors
def pseudonymize(
    table: str,
    *,
    columns: tuple[str, ...],
    work: str,
    output: str,
    keep: tuple[str, ...],
    keep_all: bool,
    overwrite: bool,
    key_file: str | None,
    as_json: bool,
) -> int:
    """Replace originals in a CSV table by what stands in the dataset's tables."""
    join = steps.pseudonymize(
        table,
        output,
        columns=_parse_columns(columns),
        work=work,
        key_file=key_file,
        keep=_names(keep),
        keep_all=keep_all,
        overwrite=overwrite,
    )
    _warn("kept as they are; make sure that they identify nobody", join.kept)
    _warn("left out; --keep NAME copies one as it is", join.dropped)
    print_document(show.join_document(join), show.join_text(join), as_json=as_json)
    return EXIT_DONE if join.n_matched == join.n_rows else EXIT_REJECTED


def _warn(what: str, names: tuple[str, ...]) -> None:
    if names:
        columns = "1 column" if len(names) == 1 else f"{len(names)} columns"
        click.echo(f"{columns} {what}: {', '.join(names)}", err=True)


def _names(texts: Iterable[str]) -> list[str]:
    return [name for text in texts for name in split_names(text)]


def _parse_columns(texts: Iterable[str]) -> dict[str, str]:
    pairs = [name.partition("=") for name in _names(texts)]
    columns = {
        keyword.strip(): name.strip() or keyword.strip() for keyword, _, name in pairs
    }
    if len(columns) < len(pairs):
        raise OptionError("--columns names a keyword twice; name each once")
    return columns
