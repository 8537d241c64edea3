"""Other de-identifiers, as far as they are installed: a file in, a file out."""

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import pydicom

from dicomdask import header
from dicomdask.deid import clean_file
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key

Tool = Callable[[Path, Path], None]
KEY = Key(b"a key for benchmarks only")
RESEARCH = load_policy("research")


def tools() -> dict[str, Tool]:
    """Return what is installed, by name; dicomdask and the floor come first."""
    found: dict[str, Tool] = {"read and save": floor, "dicomdask": ours}
    if find_spec("dicomanonymizer"):
        found["dicom-anonymizer"] = dicom_anonymizer
    if find_spec("deid"):
        found["deid"] = deid
    if find_spec("dicognito"):
        found["dicognito"] = dicognito
    if shutil.which("gdcmanon") and shutil.which("openssl"):
        found["gdcmanon"] = gdcmanon
    return found


def floor(source: Path, target: Path) -> None:
    """Read and save by pydicom: nothing goes."""
    pydicom.dcmread(source).save_as(target)


def ours(source: Path, target: Path) -> None:
    """De-identify by the policy `research`."""
    dataset = header.read_dataset(source.read_bytes())
    target.write_bytes(clean_file(dataset, RESEARCH, KEY).data)


def dicom_anonymizer(source: Path, target: Path) -> None:
    """De-identify by the defaults of dicom-anonymizer."""
    from dicomanonymizer import anonymize_dicom_file  # noqa: PLC0415 - optional

    anonymize_dicom_file(str(source), str(target))


def dicognito(source: Path, target: Path) -> None:
    """De-identify by the defaults of dicognito."""
    from dicognito.anonymizer import Anonymizer  # noqa: PLC0415 - optional

    dataset = pydicom.dcmread(source)
    Anonymizer(seed="benchmark").anonymize(dataset)
    dataset.save_as(target)


def deid(source: Path, target: Path) -> None:
    """De-identify by the default recipe of deid, private elements removed."""
    from deid.dicom import replace_identifiers  # noqa: PLC0415 - optional

    [made] = replace_identifiers(
        dicom_files=[str(source)],
        save=True,
        remove_private=True,
        output_folder=str(target.parent),
        overwrite=True,
    )
    Path(made).rename(target)


def gdcmanon(source: Path, target: Path) -> None:
    """De-identify by the Basic Profile of gdcmanon."""
    words = ["gdcmanon", "-e", "-c", str(certificate()), str(source), str(target)]
    subprocess.run(words, check=True, capture_output=True)


@cache
def certificate() -> Path:
    """Return a certificate, to which gdcmanon encrypts what it removes."""
    folder = Path(mkdtemp())
    words = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "rsa:2048",
        "-subj",
        "/CN=none",
        "-days",
        "1",
    ]
    paths = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*words, *paths], check=True, capture_output=True)
    return folder / "cert.pem"
