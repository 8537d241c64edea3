"""The command line: options to one library call, then print."""

from typing import Final

import click

import dicomdask
from dicomdask.cli import files, keep, labels, look, policy, report, run, split

SECTIONS: Final = {
    "Make a dataset": (run.convert, files.deidentify, look.demo),
    "The same as convert, step by step": (run.index, run.plan, run.encode, run.commit),
    "Look at it": (look.info, look.verify, look.bench, report.report, policy.policy),
    "Prepare to train": (split.split, labels.pseudonymize),
    "Keep it": (keep.vacuum, keep.forget),
}

EXAMPLES: Final = """\b
Examples:
  dicomdask demo
  dicomdask convert /data/export chest.zarr
  dicomdask convert s3://hospital/export s3://lab/chest.zarr --work /private/chest
  dicomdask info chest.zarr
  dicomdask info chest.zarr --files rejected

Exit codes: 0 done, nothing rejected; 1 failed; 2 wrong usage, or no DICOM found; 8
done, some inputs rejected; 130 stopped by Ctrl-C. A command that failed or was stopped
goes on where it was when it is run again."""


class _Sections(click.Group):
    """A group whose help has its commands in the order in which they are used."""

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the commands section by section, with their whole first sentence."""
        for title, commands in SECTIONS.items():
            rows = [
                (f"{one.name:<{WIDEST}}", one.get_short_help_str(200))
                for one in commands
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


WIDEST: Final = max(
    len(one.name or "") for commands in SECTIONS.values() for one in commands
)


@click.group(
    cls=_Sections,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(dicomdask.__version__)
def main() -> None:
    """Turn DICOM into a dataset that models can be trained on again and again."""


for commands in SECTIONS.values():
    for command in commands:
        main.add_command(command)
