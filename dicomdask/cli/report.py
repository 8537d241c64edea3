"""The command that writes pages for people."""

import click

from dicomdask import steps, storage
from dicomdask.cli.options import common_options, json_option, store_argument
from dicomdask.cli.output import EXIT_DONE, print_document, reports_errors
from dicomdask.errors import OptionError
from dicomdask.pseudonym import resolve_key
from dicomdask.report import PAGE, Sources, report_redactions
from dicomdask.work import Work


@click.command()
@store_argument
@click.option(
    "--redactions",
    is_flag=True,
    help="What was blanked in the pixels, and where nothing was found.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"The page; not in the store.  [default: {PAGE}]",
)
@click.option(
    "--before",
    is_flag=True,
    help="Pictures before as well, from the sources. Such a page is identified.",
)
@click.option(
    "--work",
    help="The private work directory: device names that the policy removes are read "
    "from the sources, and the page goes there.  [default with --before: STORE.work]",
)
@json_option
@common_options
@reports_errors
def report(
    store: str,
    *,
    redactions: bool,
    output: str | None,
    before: bool,
    work: str | None,
    as_json: bool,
) -> int:
    """Write a page for whoever releases a dataset, or files of deidentify."""
    if not redactions:
        raise OptionError("say what the page is to be about: --redactions")
    is_identified = before or work is not None
    if is_identified and output is not None:
        raise OptionError(
            "a page from the sources is identified, so it goes into the work "
            "directory; leave -o out"
        )
    sources = None
    if is_identified:
        directory = Work(steps.default_work(storage.resolve(store), work))
        sources = Sources(directory, resolve_key(directory.require_job().key))
    done = report_redactions(store, output or PAGE, sources=sources, before=before)
    print_document(done.document(), done.text(), as_json=as_json)
    return EXIT_DONE
