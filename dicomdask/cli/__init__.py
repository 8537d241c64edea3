"""The command line: options to one library call, then print."""

from typing import Final

import click

import dicomdask
from dicomdask.cli import files, keep, labels, look, policy, report, run, split

COMMANDS: Final = (
    *(run.convert, run.index, run.plan, run.encode, run.commit),
    files.deidentify,
    *(look.info, look.verify, look.bench, look.demo),
    report.report,
    *(labels.pseudonymize, split.split),
    *(keep.vacuum, keep.forget),
    policy.policy,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dicomdask.__version__)
def main() -> None:
    """Turn DICOM into a dataset that models can be trained on again and again."""


for command in COMMANDS:
    main.add_command(command)
