"""De-identify: read, clean and write one file, against pydicom's read and save."""

import warnings
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.data import get_testdata_file

from tests.benchmarks.contest import Contender, Report, compete
from tests.benchmarks.inputs import SCALES
from tests.benchmarks.peers import Tool, tools

FILES = {
    "CT": "CT_small.dcm",
    "MR": "MR_small.dcm",
    "SR": "reportsi.dcm",
    "US": "examples_ybr_color.dcm",
}
FLOOR = "read and save"


def run(scale_name: str) -> Report:
    """Compare with the floor, and with the peers that are installed."""
    rounds = max(1, 3 * SCALES[scale_name].rounds)
    contests, measures = [], {}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, name in FILES.items():
            source = Path(str(get_testdata_file(name)))
            contest = compete(
                f"deidentify: {kind}, {source.stat().st_size >> 10} kB",
                {
                    tool: Contender(partial(_run, work, source, Path(folder)), 1)
                    for tool, work in tools().items()
                },
                unit="files",
                reference=FLOOR,
                rounds=rounds,
            )
            contests.append(contest)
            measures[f"deidentify / floor, {kind}"] = contest.cpu_ratio(
                FLOOR, "dicomdask"
            )
    return Report(tuple(contests), measures)


def _run(work: Tool, source: Path, folder: Path) -> None:
    work(source, folder / "out.dcm")
