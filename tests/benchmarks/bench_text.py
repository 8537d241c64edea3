"""Find text that is burned in: recall, what is masked without need, and CPU.

Lines are drawn over real backgrounds, see `tests.burned`; fonts and backgrounds are the
half that nothing was tuned on. A line counts as found when boxes cover 80 % of its ink.
The peers, which are slow, see every eighth scene.
"""

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from dicomdask.model import Box
from tests.benchmarks.contest import Report, align
from tests.benchmarks.finders import OURS, Finder, finders, ours
from tests.burned import Line, Scene, backgrounds, scenes
from tests.strata import STRATA
from tests.strata import scenes as strata_scenes

N_LINES = {"tiny": 5, "full": 1000}
"""Of all styles; a quarter as many more are faint, so that low contrast has enough."""
N_OF_A_STRATUM = {"tiny": 0, "full": 40}
N_TEXT_FREE = {"tiny": 3, "full": None}
FOUND = 0.8
"""The share of a line's ink that has to be covered."""
PEERS_SEE_ONE_IN = 8
CONFIDENCE_Z = 1.96

Interval = tuple[float, float, float]
"""A share, and the 95 % interval around it."""


@dataclass(frozen=True, slots=True)
class Score:
    """What came of one way to find text."""

    lines: tuple[tuple[Line, bool], ...]
    masked: tuple[float, ...]
    cpu_s: float
    """A scene, on average."""

    def recall(self, wanted: Callable[[Line], bool]) -> Interval:
        """Return the share of such lines that were found."""
        return wilson([found for line, found in self.lines if wanted(line)])


def run(scale_name: str) -> Report:
    """Score ours on all scenes, the others on some."""
    n_lines, n_text_free = N_LINES[scale_name], N_TEXT_FREE[scale_name]
    shown = [field.shown() for field in backgrounds(held_back=True)[:n_text_free]]
    made = list(scenes(n_lines, held_back=True))
    made += scenes(n_lines // 4, held_back=True, seed=1, styles=("faint",))
    scores = {
        name: score(find, made[:: 1 if name == OURS else PEERS_SEE_ONE_IN], shown)
        for name, find in finders().items()
    }
    mine = scores[OURS]
    measures = {
        "text: recall": mine.recall(is_clear)[0],
        "text: recall, low contrast": mine.recall(is_faint)[0],
        "text: text-free pixels kept": 1 - float(np.mean(mine.masked)),
    }
    told = f"{len(made)} scenes, {len(mine.lines)} lines, {len(shown)} text-free images"
    kinds = others(N_OF_A_STRATUM[scale_name])
    return Report((), measures, (told, table(scores), groups(mine), kinds))


def score(find: Finder, made: Sequence[Scene], shown: Sequence[Any]) -> Score:
    """Let a finder look at scenes, and at backgrounds without text."""
    find(made[0].image)  # loads what it needs
    before = _cpu()
    found = [find(scene.image) for scene in made]
    cpu_s = (_cpu() - before) / len(made)
    lines = []
    for scene, boxes in zip(made, found, strict=True):
        mask = masked(boxes, scene.image)
        lines += [(line, line.covered(mask) >= FOUND) for line in scene.lines]
    needless = [float(masked(find(image), image).mean()) for image in shown]
    return Score(tuple(lines), tuple(needless), cpu_s)


def is_faint(line: Line) -> bool:
    """Tell whether the contrast of a line is low."""
    return line.is_faint


def is_clear(line: Line) -> bool:
    """Tell whether it is not."""
    return not line.is_faint


def masked(boxes: Iterable[Box], image: Any) -> Any:
    """Return which pixels of an image boxes cover."""
    mask = np.zeros(image.shape[:2], bool)
    for box in boxes:
        mask[box.top : box.bottom, box.left : box.right] = True
    return mask


def wilson(found: Sequence[bool]) -> Interval:
    """Return the share that is true, and Wilson's interval around it."""
    if not found:
        return float("nan"), 0.0, 1.0
    n, share, z = len(found), float(np.mean(found)), CONFIDENCE_Z
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return share, max(0.0, middle - reach), min(1.0, middle + reach)


def bootstrap(values: Sequence[float], rounds: int = 2000) -> Interval:
    """Return the mean, and the interval that drawing again from the values gives."""
    drawn = np.random.default_rng(0).choice(values, (rounds, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def table(scores: dict[str, Score]) -> str:
    """Return one line a way to find text."""
    head = (
        "recall",
        "in low contrast",
        "masked of text-free",
        "most",
        "ms cpu",
        "lines",
    )
    rows = [
        (
            name,
            percent(one.recall(is_clear)),
            percent(one.recall(is_faint)),
            percent(bootstrap(one.masked), digits=2),
            f"{100 * max(one.masked):.1f}",
            f"{1e3 * one.cpu_s:.0f}",
            str(len(one.lines)),
        )
        for name, one in scores.items()
    ]
    return align([("text, in %", *head), *rows])


def groups(one: Score) -> str:
    """Return the recall of each kind of line outside low contrast."""
    clear = [(line, found) for line, found in one.lines if is_clear(line)]
    rows = []
    for kind in ("size", "style", "place", "font"):
        by_kind = sorted(clear, key=lambda pair, kind=kind: getattr(pair[0], kind))
        for name, pairs in groupby(
            by_kind, lambda pair, kind=kind: getattr(pair[0], kind)
        ):
            found = [found for _, found in pairs]
            rows.append((f"{kind} {name}", percent(wilson(found)), str(len(found))))
    return align([(f"{OURS}, outside low contrast", "recall", "lines"), *rows])


def others(n_lines: int) -> str:
    """Return the recall of each stratum of `tests.strata`, low contrast included."""
    rows = []
    for name, stratum in STRATA.items() if n_lines else ():
        made = list(strata_scenes(stratum, n_lines, held_back=True))
        if not made:
            rows.append((name, "its fonts are not installed", "0"))
            continue
        found = [found for _, found in score(ours, made, ()).lines]
        rows.append((name, percent(wilson(found)), str(len(found))))
    return align([(f"{OURS}, other strata", "recall", "lines"), *rows])


def percent(interval: Interval, digits: int = 1) -> str:
    """Return a share and its interval, in percent."""
    share, low, high = (f"{100 * value:.{digits}f}" for value in interval)
    return f"{share} ({low} to {high})"


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
