"""The command that says what a policy does."""

from dataclasses import asdict

import click

from dicomdask import steps
from dicomdask.cli.options import (
    OPTION_NAMES,
    common_options,
    json_option,
    option_option,
    policy_option,
)
from dicomdask.cli.output import EXIT_DONE, print_document, reports_errors
from dicomdask.show.policies import (
    explained_text,
    policy_document,
    policy_text,
    statement_text,
)


@click.group()
def policy() -> None:
    """Say what becomes of each element."""


@policy.command("show", epilog=OPTION_NAMES)
@click.argument("file", metavar="[FILE.dcm]", required=False)
@policy_option
@option_option
@click.option("--statement", is_flag=True, help="Print a conformance statement.")
@json_option
@common_options
@reports_errors
def show_policy(
    file: str | None,
    *,
    policy: str,
    options: tuple[str, ...],
    statement: bool,
    as_json: bool,
) -> int:
    """Print the action for each attribute, or element of FILE; never a value."""
    chosen = steps.get_policy(policy, options)
    document = policy_document(chosen)
    if file is not None:
        found = steps.explain_file(file, chosen)
        document = document | {"actions": [asdict(one) for one in found]}
        text = explained_text(found)
    else:
        text = statement_text(chosen) if statement else policy_text(chosen)
    print_document(document, text, as_json=as_json)
    return EXIT_DONE
