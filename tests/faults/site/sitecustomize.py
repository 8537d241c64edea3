"""Loaded by every Python that has this folder on its path."""

import os

if os.environ.get("DICOMDASK_FAULTS"):
    from tests.faults import hooks

    hooks.install()
