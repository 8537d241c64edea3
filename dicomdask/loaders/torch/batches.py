"""The order of batches, as torch's DataLoader takes it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from torch import distributed
from torch.utils import data

from dicomdask.errors import OptionError
from dicomdask.loaders.shares import Leg, Remainder, State
from dicomdask.loaders.torch.datasets import Index, SampleDataset

AHEAD: Final = 64
"""So many batches are put in order together."""


class BatchOrder(data.Sampler[list[Index]]):
    """The batches of one rank, as indices: a DataLoader's `batch_sampler`.

    Iterating begins at the begin of the epoch, or where a loaded state stopped.

    Parameters
    ----------
    dataset
        Whose samples are ordered.
    batch_size
        Samples in a batch.
    mix
        So many blocks of samples that share chunks are shuffled together, the more the
        better mixed, and the more chunks a worker keeps; 0 does not shuffle.
    remainder
        What becomes of samples that do not share out evenly: `pad`, `keep` or `drop`;
        see `Leg`.
    rank, world
        Which consumer this is, of how many; by default as torch.distributed says.
    workers
        As many as the DataLoader has, so that each walks its own windows.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        batch_size: int,
        *,
        mix: int = 8,
        remainder: Remainder = "pad",
        rank: int | None = None,
        world: int | None = None,
        workers: int = 0,
    ) -> None:
        self._samples, self._mix = dataset.samples, mix
        self._samples.keep_window(mix)
        self._rank, n_ranks = _place(rank, world)
        leg = Leg(n_ranks, max(1, workers), batch_size, remainder)
        self._state = self._samples.begin(dataset.epoch, leg, mix=mix)

    @property
    def epoch(self) -> int:
        """Return the epoch whose batches come next."""
        return self._state.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the begin of an epoch, unless this is the one that was begun."""
        if epoch != self._state.epoch:
            leg = replace(self._state.legs[-1], batches=0)
            self._state = self._samples.begin(epoch, leg, mix=self._mix)

    def state_dict(self, given: int = 0) -> dict[str, Any]:
        """Return the state after so many batches since iterating began, as JSON."""
        return self._state.after(self._state.legs[-1].batches + given).to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state stopped, with as many ranks and workers or others.

        Raises
        ------
        OptionError
            If it is no state of these samples in this order.
        """
        found = State.from_dict(dict(state))
        leg = replace(self._state.legs[-1], batches=0)
        begun = self._samples.begin(found.epoch, leg, mix=self._mix)
        if replace(found, legs=begun.legs) != begun:
            raise OptionError(
                "the state is of other samples or another order: it wants the same "
                "commit, volumes, sampler, seed and mix"
            )
        self._state = found.go_on(leg)

    def use_workers(self, workers: int) -> None:
        """Share what is left with so many workers from here on."""
        self._state = self._state.go_on(
            replace(self._state.legs[-1], workers=workers, batches=0)
        )

    def __len__(self) -> int:
        share, begun = self._state.share(), self._state.legs[-1].batches
        return max(0, share.n_batches(self._rank) - begun)

    def __iter__(self) -> Iterator[list[Index]]:
        return self.walk(0, 1)

    def walk(self, first: int, step: int) -> Iterator[list[Index]]:
        """Yield each `step`-th batch that is left, from the `first` on."""
        state, share = self._state, self._state.share()
        order = self._samples.order(state.epoch, mix=self._mix)
        begun = state.legs[-1].batches
        numbers = range(begun + first, share.n_batches(self._rank), step)
        for start in range(0, len(numbers), AHEAD):  # many at once cost little more
            runs = [share.batch(self._rank, n) for n in numbers[start : start + AHEAD]]
            found = order.at(np.concatenate(runs))
            for run in np.split(found, np.cumsum([len(run) for run in runs])[:-1]):
                yield [(state.epoch, number) for number in run.tolist()]


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """Return which rank this process is, of how many."""
    ready = distributed.is_available() and distributed.is_initialized()
    rank = (distributed.get_rank() if ready else 0) if rank is None else rank
    world = (distributed.get_world_size() if ready else 1) if world is None else world
    if not 0 <= rank < world:
        raise OptionError(f"rank {rank} of {world}: a rank is below the world size")
    return rank, world
