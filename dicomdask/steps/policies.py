"""What a policy does, as people ask for it: in general, or to one file."""

from collections.abc import Sequence

from dicomdask import deid, header, storage
from dicomdask.deid import Explained
from dicomdask.errors import InputError, SourceError
from dicomdask.model import Settings
from dicomdask.policy import Policy
from dicomdask.steps.target import check_settings, policy_of
from dicomdask.tasks.barrier import guard, quiet


def get_policy(policy: str, options: Sequence[str] = ()) -> Policy:
    """Return a policy by its name or its file, with further options.

    Raises
    ------
    OptionError
        If there is none, or the file is damaged: which line, and what is wrong.
    """
    settings = Settings(policy=policy, options=tuple(options))
    check_settings(settings, None)
    return policy_of(settings)


def explain_file(path: str, policy: Policy) -> list[Explained]:
    """Return what a policy does to each element of one DICOM file; no values.

    Raises
    ------
    SourceError
        If the file cannot be read, or is no DICOM.
    """
    try:
        with quiet():
            data = storage.read(storage.resolve(path))
            dataset = guard(header.read_dataset, data)
            return guard(deid.explain, dataset, policy)
    except OSError:
        raise SourceError(f"{path} cannot be read; check the path") from None
    except InputError as error:
        raise SourceError(f"{path}: {error.reason}") from None
