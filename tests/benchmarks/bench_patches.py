"""Patches: random cubes of many volumes."""

from dicomdask.shards import CODECS
from tests.benchmarks.contest import Report
from tests.benchmarks.corpus import make_corpus
from tests.benchmarks.reads import best_ratio, compete_in_reading

PROFILES = ("patch", "balanced")


def run(scale_name: str) -> Report:
    """Compare all readers, by codec, profile and the side of a patch."""
    corpus = make_corpus(scale_name)
    sides = (corpus.scale.patch, corpus.scale.patch * 3 // 2)
    contests = {}
    for profile in PROFILES:
        for codec in CODECS:
            with corpus.dataset(profile, codec) as volumes:
                for side in sides:
                    title = f"patches {side}³ {codec} {profile}"
                    n = corpus.scale.n_reads * sides[0] ** 3 // side**3
                    picks = corpus.picks((side,) * 3, max(2, n))
                    contests[side, codec, profile] = compete_in_reading(
                        title, corpus, volumes, picks, codec
                    )
    none = contests[sides[0], "none", "patch"]
    lz4 = contests[sides[0], "lz4", "patch"]
    measures = {
        "patches none / memmap": best_ratio(none, "memmap (limit)"),
        "patches lz4 / zarr-python": best_ratio(lz4, "zarr-python"),
        "patches lz4 / tensorstore": best_ratio(lz4, "tensorstore"),
        "patches lz4 / raw DICOM": best_ratio(lz4, "pydicom, raw DICOM"),
    }
    return Report(tuple(contests.values()), measures)
