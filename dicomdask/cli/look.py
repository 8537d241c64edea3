"""The commands that look at a dataset, and the demo."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import click

import dicomdask
from dicomdask import commits, show, steps, storage
from dicomdask.bench import bench as run_bench
from dicomdask.cli.options import (
    common_options,
    json_option,
    parse_patch_option,
    scheduler_options,
    store_argument,
    work_option,
)
from dicomdask.cli.output import (
    EXIT_DONE,
    EXIT_FAILED,
    ProgressLine,
    print_document,
    print_summary,
    reports_errors,
    terminal_width,
)
from dicomdask.errors import OptionError
from dicomdask.pseudonym import resolve_key
from dicomdask.show.reading import (
    bench_document,
    bench_text,
    fingerprint_document,
    fingerprint_text,
)
from dicomdask.show.written import written_document, written_text
from dicomdask.tasks.record import LOOKS, FileLook, read_record, read_rows
from dicomdask.verify import verify as run_verify
from dicomdask.work import Work


@click.command()
@store_argument
@click.option(
    "--fingerprint",
    is_flag=True,
    help="Spacings, shapes and intensities of each modality too.",
)
@click.option(
    "--files",
    metavar="CODE|OUTCOME",
    help="List the files that were `rejected`, or those of a code, instead: each with "
    "its code. Their names are in the work directory only, and identify.",
)
@work_option
@json_option
@common_options
@reports_errors
def info(
    store: str,
    *,
    fingerprint: bool,
    files: str | None,
    work: str | None,
    as_json: bool,
) -> int:
    """Show what is in a dataset: sizes, modalities, outcomes by code.

    STORE may be what `deidentify` wrote, too.
    """
    if files is not None:
        return _print_files(store, work, files, as_json=as_json)
    if work is not None:
        raise OptionError("--work is where --files finds the names; add --files CODE")
    target = storage.resolve(store)
    record = read_record(target)
    if record is not None:
        if fingerprint:
            raise OptionError("DICOM files have no fingerprint; convert them")
        return _print_record(target, record, as_json=as_json)
    dataset = dicomdask.open_dataset(store)
    found = dataset.commit
    document = show.info_document(found, dataset.store)
    text = show.info_text(found, dataset.store, width=terminal_width())
    if fingerprint:
        told = fingerprint_document(dataset.fingerprint())
        document |= {"fingerprint": told}
        text += "\n\n" + fingerprint_text(told)
    print_document(document, text, as_json=as_json)
    return EXIT_DONE


def _print_record(dest: str, record: Mapping[str, Any], *, as_json: bool) -> int:
    document = written_document(dest, record, read_rows(dest, LOOKS, FileLook))
    text = written_text(document, width=terminal_width())
    print_document(document, text, as_json=as_json)
    return EXIT_DONE


def _print_files(store: str, work: str | None, wanted: str, *, as_json: bool) -> int:
    target = storage.resolve(store)
    found = steps.find_files(target, Work(steps.default_work(target, work)), wanted)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
        return EXIT_DONE
    for one in found:
        click.echo(show.file_line(one.code, one.url))
    return EXIT_DONE


@click.command()
@store_argument
@work_option
@click.option("--all", "everything", is_flag=True, help="Every frame, not a sample.")
@click.option("--sample", default=200, show_default=True, help="How many frames.")
@click.option("--seed", default=0, show_default=True, help="Decides the sample.")
@json_option
@common_options
@reports_errors
def verify(
    store: str,
    work: str | None,
    *,
    everything: bool,
    sample: int,
    seed: int,
    as_json: bool,
) -> int:
    """Re-read a dataset by an independent path and compare it with the sources."""
    target = storage.resolve(store)
    commits.require_dataset(target)
    directory = job = None
    if work is not None or storage.is_local(target):
        directory = Work(steps.default_work(target, work))
        job = directory.require_job() if work else directory.read_job()
    report = run_verify(
        target,
        work=directory if job else None,
        key=resolve_key(job.key) if job else None,
        sample=None if everything else sample,
        seed=seed,
    )
    document = {name: getattr(report, name) for name in report.__slots__}
    print_document(document, show.verify_text(report), as_json=as_json)
    return EXIT_FAILED if report.problems else EXIT_DONE


@click.command()
@store_argument
@click.option(
    "--seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long; each way of reading is gone at least a few times.",
)
@click.option(
    "--patch-size",
    default="64",
    show_default=True,
    metavar="N|Z,Y,X",
    callback=parse_patch_option,
    help="Slices, rows and columns of a patch.",
)
@click.option("--seed", default=0, show_default=True, help="Decides what is read.")
@json_option
@common_options
@reports_errors
def bench(
    store: str,
    *,
    seconds: float,
    patch_size: tuple[int, ...],
    seed: int,
    as_json: bool,
) -> int:
    """Measure what your storage gives, and how near to it the dataset is read."""
    found = run_bench(store, seconds=seconds, patch_size=patch_size, seed=seed)
    print_document(bench_document(found), bench_text(found), as_json=as_json)
    return EXIT_DONE


@click.command()
@click.argument("store", required=False)
@scheduler_options
@common_options
@reports_errors
def demo(store: str | None, **options: Any) -> int:
    """Run the main job on the DICOM files that ship inside pydicom."""
    import pydicom  # noqa: PLC0415 - only the demo asks where its files are

    source = Path(pydicom.__file__).parent / "data" / "test_files"
    target = store or str(Path(mkdtemp(prefix="dicomdask-")) / "demo.zarr")
    click.echo(f"converting the DICOM files in {source}", err=True)
    summary = dicomdask.convert(str(source), target, progress=ProgressLine(), **options)
    print_summary(summary, as_json=False)
    volumes = dicomdask.open_dataset(target).volumes
    largest = volumes.sort_values("n_frames").iloc[-1]
    shape = "x".join(map(str, largest["shape"]))
    click.echo(
        "\nread it back in Python:\n"
        "  import dicomdask\n"
        f"  ds = dicomdask.open_dataset({summary.store!r})\n"
        f"  ds.volumes                                    # {len(volumes)} rows\n"
        f"  ds.read({largest['volume_id']!r})   # {shape} voxels"
    )
    return EXIT_DONE
