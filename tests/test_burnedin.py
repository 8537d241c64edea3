"""Who may be stored without a look at the pixels."""

import dataclasses
import io
from typing import Any

import pytest

from dicomdask.burnedin import passes_without_look
from dicomdask.header import read_instance
from dicomdask.model import Instance, SourceFile
from dicomdask.policy import load_policy
from tests.builders import make_instance, to_bytes

RULES = load_policy("research").looks
STORAGE = "1.2.840.10008.5.1.4.1.1"
SECONDARY_CAPTURE = f"{STORAGE}.7"


def instance(**fields: Any) -> Instance:
    data = to_bytes(make_instance())
    whole = read_instance(io.BytesIO(data), SourceFile("a", len(data), "e"))
    return dataclasses.replace(whole, **fields)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("flag", [None, "NO", "no "])
def test_scanners_pass(modality: str, photometric: str, flag: str | None) -> None:
    one = instance(
        modality=modality,
        photometric_interpretation=photometric,
        burned_in_annotation=flag,
    )
    assert passes_without_look(one, RULES)


@pytest.mark.parametrize(
    "fields",
    [
        {"modality": "US"},
        {"modality": "CR"},
        {"modality": "DX"},
        {"modality": "MG"},
        {"modality": "XA"},
        {"modality": "OT"},
        {"modality": "SC"},
        {"modality": None},
        {"photometric_interpretation": "RGB"},
        {"photometric_interpretation": "PALETTE COLOR"},
        {"photometric_interpretation": None},
        {"burned_in_annotation": "YES"},
        {"burned_in_annotation": "yes "},
        {"burned_in_annotation": "UNKNOWN"},
        {"burned_in_annotation": "Y"},
        {"image_type": ("ORIGINAL", "SECONDARY", "AXIAL")},
        {"image_type": ("DERIVED", "secondary ")},
        {"image_type": ("DERIVED", "PRIMARY", "SCREEN SAVE")},
        {"sop_class_uid": SECONDARY_CAPTURE},
        {"sop_class_uid": f"{SECONDARY_CAPTURE}.2"},
        {"sop_class_uid": SECONDARY_CAPTURE, "conversion_type": "SYN"},
        *({"conversion_type": t} for t in ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW")),
        {"conversion_type": "XYZ"},
    ],
    ids=str,
)
def test_everything_else_is_looked_at(fields: dict[str, Any]) -> None:
    assert passes_without_look(instance(), RULES)
    assert not passes_without_look(instance(**fields), RULES)


@pytest.mark.parametrize(
    "fields",
    [
        {"conversion_type": "SYN"},
        {"image_type": ()},
        {"sop_class_uid": f"{STORAGE}.77.1.1"},
    ],
    ids=str,
)
def test_what_is_no_capture_passes(fields: dict[str, Any]) -> None:
    assert passes_without_look(instance(**fields), RULES)


def test_trusted_modality_passes_unless_it_says_that_it_is_marked() -> None:
    one = instance(
        modality="US", photometric_interpretation="RGB", image_type=("A", "SECONDARY")
    )
    assert not passes_without_look(one, RULES)
    assert passes_without_look(one, RULES, ("US",))
    assert passes_without_look(one, RULES, (" us",))
    assert not passes_without_look(one, RULES, ("DX", ""))
    for flag in ("YES", "yes", "PERHAPS"):
        marked = dataclasses.replace(one, burned_in_annotation=flag)
        assert not passes_without_look(marked, RULES, ("US",))
    nameless = dataclasses.replace(one, modality=None)
    assert not passes_without_look(nameless, RULES, ("",))
