"""The policy of a job, with what it needs of this machine."""

from dataclasses import replace

from dicomdask import faces
from dicomdask.burnedin import detector
from dicomdask.policy import Policy, load_policy
from dicomdask.work import Job


def job_policy(job: Job) -> Policy:
    """Return the policy that a job's settings name, ready for its pixels as well.

    Raises
    ------
    OptionError
        If it wants text or faces found in pixels, and what finds them is missing.
    """
    return seeing(named_policy(job))


def named_policy(job: Job) -> Policy:
    """Return the policy that a job's settings name, for what has no pixels."""
    settings = job.settings
    return load_policy(
        settings.policy,
        options=settings.options,
        trusted_pixels=settings.trusted_pixels,
        text=settings.policy_text,
    )


def seeing(policy: Policy) -> Policy:
    """Return a policy with the name of the detector, if it wants one to look.

    Raises
    ------
    OptionError
        If what finds text or faces is not installed: the message holds the command.
    """
    if policy.cleans_faces:
        faces.require()
    if not policy.cleans_pixels:
        return policy
    detector.require()
    return replace(policy, detector=detector.identity())
