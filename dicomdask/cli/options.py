"""The options of commands, each declared once."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from dicomdask import storage
from dicomdask.errors import OptionError
from dicomdask.layout import parse_patch_size
from dicomdask.model import Settings
from dicomdask.policy import OPTION_CODES

OPTION_NAMES: Final = "\n".join(
    ["\b", "Names for --option:", *(f"  {name}" for name in sorted(OPTION_CODES))]
)
"""What stands below the help of commands that take `--option`."""

Command = TypeVar("Command", bound=Callable[..., Any])

PROFILES: Final = click.Choice(["slice", "balanced", "patch"])
CODECS: Final = click.Choice(["none", "lz4", "zstd"])
IRREGULAR: Final = click.Choice(["split", "pad", "reject"])


def _require_sources(
    context: click.Context, _: click.Parameter, sources: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the sources; without them, say what a command takes besides options."""
    if not sources:
        takes = [
            one for one in context.command.params if isinstance(one, click.Argument)
        ]
        names = " ".join(one.make_metavar(context) for one in takes)
        raise click.UsageError(f"name all of these: {names}", context)
    return sources


sources_argument = click.argument(
    "sources", metavar="SRC...", nargs=-1, callback=_require_sources
)
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
    help="synchronous, threads, processes, tls://HOST:PORT or a scheduler file.  "
    "[default: a local cluster fitted to the machine]",
)
insecure_option = click.option(
    "--insecure-scheduler",
    is_flag=True,
    help="Allow a tcp:// scheduler on this machine: its users can all run code there.",
)
memory_option = click.option(
    "--memory", help="What one local worker may take, such as 4GiB."
)
policy_option = click.option(
    "--policy",
    default="research",
    show_default=True,
    help="What becomes of each element: research (Basic Profile, dates shifted), "
    "basic (dates go), none, or a policy file (FILE.toml).",
)
option_option = click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME",
    help="An option of PS3.15 Annex E besides, of those below; as often as needed.",
)
trust_option = click.option(
    "--trust-pixels",
    multiple=True,
    metavar="MODALITY",
    help="A modality whose pixels you know to hold no text, such as DX; as often as "
    "needed.",
)
profile_option = click.option(
    "--profile",
    type=PROFILES,
    default="balanced",
    show_default=True,
    help="How the dataset will be read most.",
)


def parse_patch_option(
    _: click.Context, __: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Return what `--patch-size` says, as slices, rows and columns."""
    try:
        return None if text is None else parse_patch_size(text)
    except OptionError as error:
        raise click.BadParameter(str(error)) from None


patch_size_option = click.option(
    "--patch-size",
    metavar="N|Z,Y,X",
    callback=parse_patch_option,
    help="Cut chunks for patches of this many slices, rows and columns, such as 64 or "
    "32,96,96, instead of by --profile.",
)
codec_option = click.option(
    "--codec",
    type=CODECS,
    default="lz4",
    show_default=True,
    help="How chunks are compressed: none reads fastest, zstd is smallest.",
)
irregular_option = click.option(
    "--on-irregular",
    type=IRREGULAR,
    default="split",
    show_default=True,
    help="What becomes of slices that are not evenly spaced: stored in pieces, as one "
    "volume whose missing slices are marked, or rejected.",
)
where_option = click.option(
    "--where", help="Only instances for which this holds: \"Modality == 'CT'\"."
)
limit_option = click.option("--limit", type=int, help="At most so many volumes.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _use_storage_options(
    _: click.Context, __: click.Parameter, told: str | None
) -> None:
    if told is None:
        return
    try:
        storage.use_options(told)
    except OptionError as error:
        raise click.BadParameter(str(error)) from None


storage_option = click.option(
    "--storage-options",
    metavar="JSON|FILE",
    expose_value=False,
    callback=_use_storage_options,
    help="What opens object stores, by fsspec's names; a file keeps credentials out "
    "of the list of processes.  [default: $DICOMDASK_STORAGE_OPTIONS, AWS_*, …]",
)
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
    patch_size_option,
    codec_option,
    irregular_option,
    where_option,
    limit_option,
)
common_options = _together(storage_option, verbose_option)
scheduler_options = _together(scheduler_option, insecure_option)
run_options = _together(scheduler_options, memory_option, common_options)


def take_settings(options: dict[str, Any]) -> Settings:
    """Take what settings are made of out of a command's options."""
    return Settings(
        policy=options.pop("policy"),
        options=tuple(options.pop("options")),
        trusted_pixels=tuple(options.pop("trust_pixels")),
        profile=options.pop("profile"),
        on_irregular=options.pop("on_irregular"),
        where=options.pop("where"),
        patch_size=options.pop("patch_size"),
        codec=options.pop("codec"),
    )
