"""Splits: which patients train a model and which test it, so that none does both.

`assign` is the arithmetic, `make` puts it to a table of volumes, `split` is what people
hold, `files` is how it is kept.
"""

from dicomdask.splits.assign import DEFAULT_FRACTIONS
from dicomdask.splits.files import read_labels, read_split_table, read_table
from dicomdask.splits.make import HELD_OUT, Options, make_split
from dicomdask.splits.split import Split, bind, check_disjoint

__all__ = [
    "DEFAULT_FRACTIONS",
    "HELD_OUT",
    "Options",
    "Split",
    "bind",
    "check_disjoint",
    "make_split",
    "read_labels",
    "read_split_table",
    "read_table",
]
