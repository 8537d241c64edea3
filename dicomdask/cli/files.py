"""The command that writes de-identified DICOM files."""

from dataclasses import asdict
from typing import Any

import click

from dicomdask import show, steps
from dicomdask.cli.options import (
    OPTION_NAMES,
    json_option,
    key_option,
    option_option,
    policy_option,
    run_options,
    sources_argument,
    trust_option,
)
from dicomdask.cli.output import (
    EXIT_DONE,
    EXIT_REJECTED,
    ProgressLine,
    place_words,
    print_document,
    reports_errors,
    terminal_width,
)


@click.command(epilog=OPTION_NAMES)
@sources_argument
@click.argument("dest")
@click.option("--work", help="The private work directory.  [default: DEST.work]")
@key_option
@policy_option
@option_option
@trust_option
@click.option(
    "--crosswalk",
    is_flag=True,
    help="Write old and new identifiers to the work directory, which identify all.",
)
@run_options
@json_option
@reports_errors
def deidentify(
    sources: tuple[str, ...], dest: str, *, as_json: bool, **options: Any
) -> int:
    """Write de-identified DICOM files; resume and extend what is there."""
    done = steps.deidentify(sources, dest, progress=ProgressLine(), **options)
    document = asdict(done) | {"stages": show.stages_document(done.stages)}
    has_rejected = bool(done.outcomes.get("rejected"))
    text = show.deidentified_text(
        done.dest, done.outcomes, done.codes, done.mappings, width=terminal_width()
    )
    text += "\n\n" + "\n".join(show.stages_lines(done.stages))
    if has_rejected:
        place = place_words(done.dest, done.work)
        text += f"\n\nnext: dicomdask info {place} --files rejected"
    print_document(document, text, as_json=as_json)
    return EXIT_REJECTED if has_rejected else EXIT_DONE
