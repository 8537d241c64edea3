"""The steps as a user runs them: index, plan, encode, commit, and all at once.

Each reads and writes the work directory, so a step that was cut off is simply run
again: it does what has no receipt yet. Nothing here touches an input; the tasks do.
"""

from dicomdask.runlog import Progress
from dicomdask.steps.files import Deidentified, deidentify
from dicomdask.steps.inputs import InputFile, find_files
from dicomdask.steps.labels import pseudonymize
from dicomdask.steps.policies import explain_file, get_policy
from dicomdask.steps.removal import forget, vacuum
from dicomdask.steps.session import Session, default_work, open_session
from dicomdask.steps.stages import index, make_plan, require_files
from dicomdask.steps.storing import Summary, commit, encode
from dicomdask.steps.target import check_store, set_target
from dicomdask.steps.together import convert, finish, prepare
from dicomdask.tasks.removal import Forgot, Found
from dicomdask.tasks.vacuum import Vacuumed

__all__ = [
    "Deidentified",
    "Forgot",
    "Found",
    "InputFile",
    "Progress",
    "Session",
    "Summary",
    "Vacuumed",
    "check_store",
    "commit",
    "convert",
    "default_work",
    "deidentify",
    "encode",
    "explain_file",
    "find_files",
    "finish",
    "forget",
    "get_policy",
    "index",
    "make_plan",
    "open_session",
    "prepare",
    "pseudonymize",
    "require_files",
    "set_target",
    "vacuum",
]
