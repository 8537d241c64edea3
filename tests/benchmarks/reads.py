"""One contest of all readers over the same boxes, in one layout."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks import readers
from tests.benchmarks.contest import Contender, Contest, compete
from tests.benchmarks.corpus import Corpus, Pick, Volumes

BATCHES = (16, 32)
OURS = ("dicomdask", *(f"dicomdask, read_many of {size}" for size in BATCHES))


def compete_in_reading(
    title: str, corpus: Corpus, volumes: Volumes, picks: Sequence[Pick], codec: str
) -> Contest:
    """Let all readers read the picks; outputs are what they read of the first two."""
    unit = title.split()[0]
    ones: Mapping[str, readers.Reader] = {
        "memmap (limit)": readers.memmap(corpus),
        "dicomdask": readers.dicomdask(volumes),
        "dicomdask, first touch": readers.dicomdask_first(volumes, len(picks)),
        "zarr-python": readers.zarr_python(volumes),
        "tensorstore": readers.open_tensorstore(volumes),
        "h5py": readers.h5(corpus, volumes, codec),
        "pydicom, raw DICOM": readers.dicom(corpus),
    }
    contenders, outputs = {}, {}
    for name, read in ones.items():
        few = picks[: _few(name, corpus, picks)]
        contenders[name] = Contender(_over(read, few), len(few))
        outputs[name] = [read(pick) for pick in picks[:2]]
    many = readers.dicomdask_many(volumes)
    for name, size in zip(OURS[1:], BATCHES, strict=True):
        contenders[name] = Contender(_over(many, _batches(picks, size)), len(picks))
        outputs[name] = list(many(picks[:2]).copy())
    return compete(
        f"{title}: {corpus.told}",
        contenders,
        unit=unit,
        reference="memmap (limit)",
        rounds=corpus.scale.rounds,
        outputs=outputs,
    )


def best_ratio(contest: Contest, reference: str) -> float:
    """Return how we compare in the way of reading that suits best: one or several."""
    return max(contest.ratio(name, reference) for name in OURS)


def _few(name: str, corpus: Corpus, picks: Sequence[Pick]) -> int:
    """Return how many picks a slow reader reads in a round."""
    z = picks[0][1][0]
    if name == "pydicom, raw DICOM":
        return max(1, corpus.scale.n_slow_reads // (z.stop - z.start))
    return corpus.scale.n_slow_reads if name == "zarr-python" else len(picks)


def _batches(picks: Sequence[Pick], size: int) -> list[Sequence[Pick]]:
    return [picks[start : start + size] for start in range(0, len(picks), size)]


def _over(read: Callable[[Any], Any], items: Sequence[Any]) -> Callable[[], None]:
    def run() -> None:
        for item in items:
            read(item)

    return run
