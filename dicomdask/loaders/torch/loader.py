"""Loaders: batches that are read by workers, and whose epochs resume in the middle."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils import data

from dicomdask.errors import OptionError, WorkerError
from dicomdask.loaders.options import Batch, LeftOut
from dicomdask.loaders.shares import Remainder
from dicomdask.loaders.torch.batches import BatchOrder
from dicomdask.loaders.torch.datasets import SampleDataset, collate


class Loader(data.DataLoader[Batch]):
    """A DataLoader in our order, whose epochs resume in the middle.

    Batches are dicts as `Samples.read` returns them, with tensors. When an epoch is
    complete, iterating begins the next one.

    Parameters
    ----------
    dataset
        Whose samples are loaded.
    batch_size, mix, remainder, rank, world
        See `BatchOrder`.
    num_workers
        Processes that read; 0 reads in this one.
    **options
        Passed on to DataLoader: `pin_memory`, `prefetch_factor`, …

    Attributes
    ----------
    left_out
        What could not be read so far, with `on_error="skip"`.

    Raises
    ------
    BatchError
        If the samples cannot be batched.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        batch_size: int = 1,
        *,
        mix: int = 8,
        remainder: Remainder = "pad",
        rank: int | None = None,
        world: int | None = None,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        if batch_size > 1:
            dataset.samples.check_one_shape()
        self.batches = BatchOrder(
            dataset,
            batch_size,
            mix=mix,
            remainder=remainder,
            rank=rank,
            world=world,
            workers=num_workers,
        )
        self.left_out: list[LeftOut] = []
        self._given = 0
        options = {"collate_fn": collate, **options, "batch_sampler": self.batches}
        super().__init__(dataset, num_workers=num_workers, **options)

    @property
    def epoch(self) -> int:
        """Return the epoch that is under way, or comes next."""
        return self.batches.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the begin of an epoch, unless this is the one that was begun."""
        if epoch != self.epoch:
            self._given = 0
        self.batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands, as JSON can hold it: the same on every rank.

        It counts the batches that this loader has yielded, not those that workers have
        read ahead, and takes it that every rank has yielded as many.
        """
        return self.batches.state_dict(self._given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state stopped: see `BatchOrder.load_state_dict`."""
        self.batches.load_state_dict(state)
        self._given = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._given = 0
        batches = super().__iter__()
        try:
            while (batch := _next(batches)) is not None:
                self._given += 1
                self.left_out += batch["left_out"]
                if "image" in batch:
                    yield batch
        finally:
            self._end_workers(batches)
        self.set_epoch(self.epoch + 1)

    def _end_workers(self, batches: Any) -> None:
        """End workers now: torch ends them where garbage is collected, slowly."""
        end = getattr(batches, "_shutdown_workers", None)
        if end is not None and not self.persistent_workers:
            end()


def _next(batches: Iterator[Batch]) -> Batch | None:
    """Return the next batch; None after the last."""
    try:
        return next(batches, None)
    except (ConnectionError, EOFError) as error:
        # Torch finds out by itself, but for a batch that is handed over just then.
        raise WorkerError(
            "a worker of the loader ended before it had handed over its batch: killed, "
            "perhaps for want of memory; the loader's state resumes the epoch"
        ) from error


class BatchStream(data.IterableDataset[Batch]):
    """Whole batches, for a DataLoader with ``batch_size=None``.

    Each worker of a DataLoader yields its own. `state_dict` and `load_state_dict` are
    those that torchdata's StatefulDataLoader calls, which keeps one state a worker;
    without workers they serve as those of `Loader`.

    Parameters
    ----------
    dataset
        Whose samples are read.
    batch_size, mix, remainder, rank, world
        See `BatchOrder`.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        batch_size: int = 1,
        *,
        mix: int = 8,
        remainder: Remainder = "pad",
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        self._dataset = dataset
        self._batches = BatchOrder(
            dataset, batch_size, mix=mix, remainder=remainder, rank=rank, world=world
        )
        self._begun = self._given = 0
        self._workers: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the begin of an epoch; workers that persist do so by themselves."""
        if epoch != self._batches.epoch:
            self._begun = self._given = 0
        self._batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where this process stands, as JSON can hold it."""
        if self._workers in (None, 1):
            return self._batches.state_dict(self._given)
        mine = {"given": self._given, "workers": self._workers}
        return {**self._batches.state_dict(), "worker": mine}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state stopped; that of a worker, in a worker of as many.

        Raises
        ------
        OptionError
            If it is no state of these samples in this order.
        """
        state = dict(state)
        mine = state.pop("worker", {"given": 0, "workers": None})
        self._batches.load_state_dict(state)
        self._begun = self._given = mine["given"]
        self._workers = mine["workers"]

    def __iter__(self) -> Iterator[Batch]:
        info = data.get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        if self._begun and self._workers != workers:
            raise OptionError(
                f"this is the state of one of {self._workers} workers and there are "
                f"{workers}; use as many, or a Loader, which takes any number"
            )
        self._workers, self._given = workers, self._begun
        self._batches.use_workers(workers)
        for indices in self._batches.walk(number + self._begun * workers, workers):
            self._given += 1
            yield collate(self._dataset.__getitems__(indices))
        self.set_epoch(self._batches.epoch + 1)
