"""Slices: random axial slices of many volumes."""

from dicomdask.shards import CODECS
from tests.benchmarks.contest import Report
from tests.benchmarks.corpus import make_corpus
from tests.benchmarks.reads import best_ratio, compete_in_reading

PROFILES = ("slice", "balanced")


def run(scale_name: str) -> Report:
    """Compare all readers, by codec and profile."""
    corpus = make_corpus(scale_name)
    scale = corpus.scale
    picks = corpus.picks((1, scale.width, scale.width), scale.n_reads)
    contests = {}
    for profile in PROFILES:
        for codec in CODECS:
            title = f"slices {codec} {profile}"
            with corpus.dataset(profile, codec) as volumes:
                contests[title] = compete_in_reading(
                    title, corpus, volumes, picks, codec
                )
    none, lz4 = contests["slices none slice"], contests["slices lz4 slice"]
    measures = {
        "slices none / memmap": best_ratio(none, "memmap (limit)"),
        "slices lz4 / zarr-python": best_ratio(lz4, "zarr-python"),
        "slices lz4 / tensorstore": best_ratio(lz4, "tensorstore"),
        "slices lz4 / raw DICOM": best_ratio(lz4, "pydicom, raw DICOM"),
        "slices lz4 / h5py": best_ratio(lz4, "h5py"),
    }
    return Report(tuple(contests.values()), measures)
