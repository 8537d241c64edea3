"""The command that shares out a dataset's patients."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import click
import pandas as pd

import dicomdask
from dicomdask import splits
from dicomdask.cli.options import common_options, json_option, store_argument
from dicomdask.cli.output import EXIT_DONE, print_document, reports_errors
from dicomdask.errors import OptionError
from dicomdask.sheets import split_names
from dicomdask.show.reading import split_document, split_text


@click.command()
@store_argument
@click.option(
    "-o", "--output", required=True, metavar="FILE.csv|.parquet", help="The file."
)
@click.option(
    "--fractions",
    default="train=0.8,val=0.1,test=0.1",
    show_default=True,
    metavar="NAME=SHARE,...",
    help="The splits, and their shares of the patients.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Another one: another split."
)
@click.option(
    "--stratify",
    multiple=True,
    metavar="COLUMN,...",
    help="Share out alike what is alike here: columns of the volumes or of --labels.",
)
@click.option("--labels", metavar="TABLE", help="A table of your own, CSV or Parquet.")
@click.option(
    "--on",
    default="PatientID",
    show_default=True,
    help="The column that --labels and the volumes share.",
)
@click.option(
    "--hold-out-site",
    "sites",
    multiple=True,
    metavar="SITE_KEY",
    help="Put all patients of a site into a split of their own.",
)
@click.option(
    "--hold-out",
    "others",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="The same, for patients with a volume that has this value.",
)
@click.option(
    "--hold-out-into",
    default=splits.HELD_OUT,
    show_default=True,
    help="Which split takes what is held out.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Begin the file anew.  [default: who is in it keeps the place]",
)
@json_option
@common_options
@reports_errors
def split(
    store: str,
    output: str,
    *,
    fractions: str,
    seed: int,
    stratify: tuple[str, ...],
    labels: str | None,
    on: str,
    sites: tuple[str, ...],
    others: tuple[str, ...],
    hold_out_into: str,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Share out the patients to train, val and test, whatever data come later."""
    dataset = dicomdask.open_dataset(store)
    wanted = [name for text in stratify for name in split_names(text)]
    found = dataset.split(
        _parse_fractions(fractions),
        seed=seed,
        stratify=wanted,
        labels=_read_labels(labels, on, wanted, dataset.volumes),
        on=on,
        hold_out=_parse_hold_out(sites, others),
        hold_out_into=hold_out_into,
        extends=None if overwrite else output,
    )
    found.save(output)
    document = split_document(found, output)
    print_document(document, split_text(found, output), as_json=as_json)
    return EXIT_DONE


def _parse_fractions(text: str) -> dict[str, float]:
    pairs = [name.partition("=") for name in split_names(text)]
    try:
        found = {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        raise OptionError(
            "--fractions are written train=0.8,val=0.1,test=0.1"
        ) from None
    if len(found) < len(pairs):
        raise OptionError("--fractions names a split twice; name each once")
    return found


def _parse_hold_out(
    sites: Sequence[str], others: Iterable[str]
) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = defaultdict(list)
    found["site_key"] += sites
    for text in others:
        column, equals, value = text.partition("=")
        if not equals:
            raise OptionError("--hold-out is written COLUMN=VALUE")
        found[column].append(value)
    return {column: values for column, values in found.items() if values} or None


def _read_labels(
    path: str | None, on: str, wanted: Sequence[str], volumes: pd.DataFrame
) -> pd.DataFrame | None:
    if path is None:
        return None
    theirs = [name for name in wanted if name not in volumes]
    return splits.read_labels(path, on=on, columns=theirs)
