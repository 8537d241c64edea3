"""The tables of one state of a dataset, and what is made of them alone."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Unpack

import pandas as pd

from dicomdask import commits, splits, tables
from dicomdask.commits import Commit
from dicomdask.dataset import fingerprint
from dicomdask.errors import SplitError
from dicomdask.splits import Split


class Tables:
    """The tables of a commit; each is read when it is first used."""

    def __init__(self, store: str, commit: Commit) -> None:
        self.store = store
        self.commit = commit

    def __repr__(self) -> str:
        n = self.commit.counts["volumes"]
        return f"<dicomdask.Dataset {self.store} commit {self.commit.n}: {n} volumes>"

    def __len__(self) -> int:
        return int(self.commit.counts["volumes"])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tables out: another process reads those it needs."""
        own = type(self)
        return {
            name: value
            for name, value in self.__dict__.items()
            if not isinstance(getattr(own, name, None), cached_property)
        }

    def _table(self, name: str) -> pd.DataFrame:
        return commits.read_frame(self.store, self.commit, name)

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """One row a volume.

        `header` and `statistics` are read when they are looked at; lists are made into
        arrays then.
        """
        return self._table("volumes")

    @cached_property
    def frames(self) -> pd.DataFrame:
        """One row a stored frame: its SOP instance, where it lies, slope, intercept."""
        return self._table("frames")

    @cached_property
    def instances(self) -> pd.DataFrame:
        """One row a stored instance: de-identified attributes."""
        return self._table("instances")

    @cached_property
    def inputs(self) -> pd.DataFrame:
        """One row an input: its outcome and the reason."""
        return self._table("inputs")

    @cached_property
    def fingerprints(self) -> pd.DataFrame:
        """One row a volume: the values that the fingerprint is pooled from."""
        return self._table("fingerprints")

    @cached_property
    def redactions(self) -> pd.DataFrame:
        """One row a region blanked in the pixels: where, in which frames, how found."""
        return self._table("redactions")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.volumes["volume_id"])}

    def row_number(self, volume_id: str) -> int:
        """Return the number of a volume's row; raise KeyError if there is none."""
        try:
            return self._rows[volume_id]
        except KeyError:
            raise KeyError(f"no volume {volume_id} in {self.store}") from None

    def row(self, volume_id: str) -> "pd.Series[Any]":
        """Return a volume's row of `volumes`; raise KeyError if there is none."""
        return self.volumes.iloc[self.row_number(volume_id)]

    def frames_of(self, volume_id: str) -> pd.DataFrame:
        """Return the rows of `frames` of one volume.

        Only those parts of the table are read that may hold them.

        Raises
        ------
        KeyError
            If there is no such volume.
        ReadError
            If a part is missing or damaged.
        """
        number = self.row_number(volume_id)
        key = str(self.volumes["series_key"].array[number])
        parts = self.commit.tables.get("frames", ())
        ranges = [commits.begins_with(key)]
        [found] = commits.sweep(self.store, "frames", parts, ranges)
        mine = tables.pick_rows(found, "volume_id", [volume_id])
        return tables.to_frame(tables.sort("frames", mine))

    def fingerprint(self) -> pd.DataFrame:
        """Return spacings, shapes and intensities, one row a modality and units.

        The commit tells it, so that neither tables nor voxels are read. One of an
        earlier version does not: then it is worked out of the statistics of its
        volumes; see `dataset.fingerprint`.
        """
        told = fingerprint.told(self.commit.statistics)
        if told is not None:
            return told
        return fingerprint.fingerprint(self.volumes[list(fingerprint.COLUMNS)])

    def split(
        self,
        fractions: Mapping[str, float] | None = None,
        *,
        extends: str | None = None,
        **options: Unpack[splits.Options],
    ) -> Split:
        """Share out the patients, so that none is both trained on and tested on.

        Parameters
        ----------
        fractions, options
            As `splits.make_split` has them: seed, stratify, labels, on, hold_out,
            hold_out_into.
        extends
            A file that `Split.save` wrote, if it is there: its patients keep their
            place, whatever else is asked for.

        Examples
        --------
        >>> ds.split(stratify=["Modality"])["train"]  # doctest: +SKIP
        """
        before = None if extends is None else splits.read_split_table(extends)
        return splits.make_split(self.volumes, fractions, previous=before, **options)

    def read_split(self, path: str) -> Split:
        """Return a split that `Split.save` or `dicomdask split` wrote.

        Patients that came to the dataset later are in none of its parts; its
        `warnings` count them.

        Raises
        ------
        SplitError
            If there is none, or it puts a patient into two parts.
        """
        table = splits.read_split_table(path)
        if table is None:
            raise SplitError(f"there is no split at {path}; make one: dicomdask split")
        return splits.bind(self.volumes, table)
