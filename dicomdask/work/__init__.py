"""The work directory: identified intermediates, and the job they are for."""

from dicomdask.work.directory import Work
from dicomdask.work.job import CONTENTS, Job

__all__ = ["CONTENTS", "Job", "Work"]
