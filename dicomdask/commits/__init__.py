"""The generations of a dataset: immutable table parts, and commits that name them.

A commit is one exclusive creation of `commits/<n>.json`; the highest n is the dataset.
Nothing that a commit names ever changes, so a reader of an old commit reads old bytes.

A table is a few sorted runs, each cut into parts with disjoint ranges of keys. A commit
adds a run of what is new, rewrites the parts that hold what goes, and merges runs of
like size: a row is written O(log n) times in all, whatever the number of commits.
"""

from dicomdask.commits.generations import (
    Change,
    Commit,
    commit_url,
    identity,
    list_commits,
    publish,
    read_columns,
    read_commit,
    read_frame,
    read_rows,
    read_table,
    require_dataset,
)
from dicomdask.commits.parts import (
    ABOVE_ALL,
    TablePart,
    begins_with,
    read_part,
    sweep,
    total,
    write_part,
)

__all__ = [
    "ABOVE_ALL",
    "Change",
    "Commit",
    "TablePart",
    "begins_with",
    "commit_url",
    "identity",
    "list_commits",
    "publish",
    "read_columns",
    "read_commit",
    "read_frame",
    "read_part",
    "read_rows",
    "read_table",
    "require_dataset",
    "sweep",
    "total",
    "write_part",
]
