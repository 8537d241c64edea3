"""What a run plans for: a store that is new, or made with the same settings."""

import json
from dataclasses import replace
from typing import Any, get_args

from dicomdask import commits, plan, storage
from dicomdask.commits import Commit
from dicomdask.errors import OptionError, PlanError, PolicyError, StoreError
from dicomdask.model import Codec, Irregular, Profile, Settings
from dicomdask.policy import Policy, load_policy, parse_policy
from dicomdask.pseudonym import Key
from dicomdask.steps.session import Session
from dicomdask.tasks.commit import kept_settings
from dicomdask.tasks.policies import job_policy, seeing
from dicomdask.work import Job


def set_target(
    session: Session, store: str, settings: Settings, *, limit: int | None = None
) -> None:
    """Decide what the session plans for.

    Raises
    ------
    StoreError
        If the store is no dataset.
    PlanError, PolicyError
        If it was made with other settings, or they cannot be used.
    """
    check_settings(settings, limit)
    settings = with_policy(settings)
    url = storage.resolve(store)
    check_places(url, session.work.url)
    before = session.work.require_job()
    job = replace(before, store=url, settings=settings, limit=limit)
    session.newest = check_store(job, session.key)
    if job != before:
        session.work.write_job(job)
    session.log.note(
        "settings",
        policy=settings.policy,
        options=settings.options,
        trusted_pixels=settings.trusted_pixels,
        profile=settings.profile,
        patch_size=settings.patch_size,
        codec=settings.codec,
        on_irregular=settings.on_irregular,
        is_filtered=settings.where is not None,  # what it says may name a patient
        limit=limit,
    )


def check_places(store: str, work: str) -> None:
    """Check that the work directory does not lie inside the store."""
    if storage.join(work, "").startswith(storage.join(store, "")):
        raise StoreError(
            f"the work directory may not lie inside the store; give another --work "
            f"than {work}"
        )


def with_policy(settings: Settings) -> Settings:
    """Return the settings with what the policy file says that they name, if they do.

    Raises
    ------
    PolicyError
        If the file cannot be read or is damaged.
    """
    if not settings.policy.endswith(".toml"):
        return settings
    try:
        text = storage.read(storage.resolve(settings.policy)).decode("utf-8")
        name = parse_policy(text).name
    except (OSError, UnicodeDecodeError):
        raise PolicyError(
            f"the policy file {settings.policy} cannot be read; check the path"
        ) from None
    except PolicyError as error:
        raise PolicyError(f"{settings.policy}: {error}") from None
    return replace(settings, policy=name, policy_text=text)


def policy_of(settings: Settings) -> Policy:
    """Return the policy that settings name, by name or by file.

    Raises
    ------
    PolicyError
        If there is none, or it cannot be used.
    OptionError
        If it wants text or faces found in pixels, and what finds them is missing.
    """
    found = with_policy(settings)
    policy = load_policy(
        found.policy,
        options=found.options,
        trusted_pixels=found.trusted_pixels,
        text=found.policy_text,
    )
    return seeing(policy)


def check_settings(settings: Settings, limit: int | None) -> None:
    """Raise OptionError for settings that cannot be used."""
    try:
        policy_of(settings)
    except PolicyError as error:
        raise OptionError(str(error)) from None
    if settings.where is not None:
        plan.check_where(settings.where)
    if settings.profile not in get_args(Profile):
        raise OptionError(f"--profile is one of {', '.join(get_args(Profile))}")
    if settings.codec not in get_args(Codec):
        raise OptionError(f"--codec is one of {', '.join(get_args(Codec))}")
    if settings.patch_size is not None and settings.profile != Settings().profile:
        raise OptionError("give either --profile or --patch-size: both cut the chunks")
    if settings.on_irregular not in get_args(Irregular):
        raise OptionError(f"--on-irregular is one of {', '.join(get_args(Irregular))}")
    if limit is not None and limit < 1:
        raise OptionError("--limit is a number of volumes, at least 1")


def check_store(job: Job, key: Key) -> Commit | None:
    """Check that the job's store is new, or a dataset made with the same settings.

    Returns its newest commit.

    Raises
    ------
    StoreError
        If it is something else, or cannot be written to.
    PlanError
        If its policy, key, profile, codec or filter differ; named in the message.
    """
    store = str(job.store)
    if storage.list_names(store) or storage.is_file(store):
        commits.require_dataset(store)
    newest = commits.read_commit(store)
    if newest is None:
        return None
    wanted: dict[str, Any] = dict(kept_settings(job, key))
    wanted["policy digest"] = job_policy(job).digest
    wanted["key"] = key.fingerprint()
    made_with = {
        **newest.settings,
        "policy digest": newest.policy["digest"],
        "key": newest.key_fingerprint,
    }
    plain = json.loads(json.dumps(wanted))
    differing = sorted(name for name in plain if plain[name] != made_with.get(name))
    if "policy" in differing:  # whose digest differs then, too
        differing = [name for name in differing if name != "policy digest"]
    if differing:
        told = " (of the same name: its rules or options, or dicomdask, changed)"
        raise PlanError(
            f"{store} was made with another {', '.join(differing)}"
            f"{told if 'policy digest' in differing else ''}; use the same, another "
            "store, or --overwrite"
        )
    return newest
