"""Faces: heads whose parts are known lose their faces and nothing of their brains."""

from functools import cache

import numpy as np
import pytest

from dicomdask import faces
from tests import heads

POSES = {
    "straight": {},
    "bent": {"turn": (15, 0, 0)},
    "stretched": {"turn": (-15, 0, 0)},
    "turned": {"turn": (0, 20, 0)},
    "leaning": {"turn": (0, 0, 12)},
    "oblique": {"tilt": (15, 10, -8)},
    "sagittal": {"plane": "sagittal", "spacing": (3.0, 2.0, 2.0)},
    "coronal": {"plane": "coronal", "spacing": (4.0, 1.5, 1.5)},
    "thick slices": {"spacing": (5.0, 1.5, 1.5)},
    "from top to bottom": {"reverse": True},
    "without a crown": {"high": (105.0, 118.0, 20.0)},
    "to the mouth only": {"low": (-105.0, -130.0, -75.0)},
    "with the neck": {"low": (-105.0, -130.0, -205.0)},
    "child": {"size": 0.75},
    "dark in front": {"shade": 0.4},
    "darker in front": {"shade": 0.6},
    "dark in front and a child": {"shade": 0.5, "size": 0.75},
    "dark in front and sagittal": {
        "shade": 0.4,
        "plane": "sagittal",
        "spacing": (3.0, 2.0, 2.0),
    },
}


def face_of(scan, contrast, seed=1):
    planes = enumerate(scan.values.astype(np.float32))
    modality = "CT" if contrast == "CT" else "MR"
    return faces.find_face(planes, scan.affine, len(scan.values), modality, seed)


@cache
def cleaned(contrast, pose):
    """Return a scan, and where its values were blanked."""
    scan = heads.scan(contrast, **POSES[pose])
    face = face_of(scan, contrast)
    assert face is not None
    none = np.zeros(scan.values.shape[1:], bool)
    masks = (
        faces.face_mask(none.shape, z, scan.affine, face)
        for z in range(len(scan.values))
    )
    return scan, np.stack([none if mask is None else mask for mask in masks])


def in_front(scan, pose):
    """Return the skin of the face: that in front of the ears, from brow to chin."""
    index = np.indices(scan.labels.shape).reshape(3, -1)
    points = scan.affine[:3, :3] @ index + scan.affine[:3, 3:]
    turn = heads.rotation(*POSES[pose].get("turn", (0, 0, 0)))
    _, y, z = turn.T @ points / POSES[pose].get("size", 1)
    place = (y < -45) & (z < -18) & (z > -125)
    return (scan.labels == heads.SKIN) & place.reshape(scan.labels.shape)


CASES = [
    *(("CT", pose) for pose in POSES if "dark" not in pose),
    *(("T1", pose) for pose in ("straight", "bent", "stretched", "oblique", "child")),
    *(("T2", pose) for pose in ("straight", "sagittal", "with the neck", "turned")),
    *(("T2", pose) for pose in ("dark in front", "dark in front and sagittal")),
    *(("T1", pose) for pose in ("darker in front", "dark in front and a child")),
]


@pytest.mark.parametrize(("contrast", "pose"), CASES)
def test_the_face_goes_and_the_brain_stays(contrast, pose):
    scan, gone = cleaned(contrast, pose)
    assert not gone[scan.labels == heads.BRAIN].any()
    face = in_front(scan, pose) | (scan.labels == heads.NOSE)
    assert gone[face].mean() >= 0.95
    assert gone[scan.labels == heads.NOSE].mean() > 0.99
    assert gone[scan.labels == heads.EYE].mean() > 0.8
    tissue = scan.labels != heads.AIR
    assert gone[tissue].mean() < 0.25


@pytest.mark.parametrize(
    ("contrast", "turn"),
    [
        ("CT", (180, 0, 0)),
        ("CT", (0, 180, 0)),
        ("T1", (0, 0, 180)),
        ("T1", (0, 180, 0)),
        ("T2", (0, 180, 0)),
    ],
)
def test_a_head_that_lies_otherwise_than_said_is_not_found(contrast, turn):
    assert face_of(heads.scan(contrast, turn=turn), contrast) is None


@pytest.mark.parametrize("contrast", ["CT", "T1"])
def test_what_is_no_head_is_not_found(contrast):
    neck = heads.scan(contrast, high=(105.0, 118.0, -66.0), low=(-105, -130, -205))
    assert face_of(neck, contrast) is None
    noise = np.random.default_rng(0).normal(50, 9, (30, 60, 60)).astype(np.float32)
    affine = np.diag([4.0, 3.0, 3.0, 1.0])
    modality = "CT" if contrast == "CT" else "MR"
    assert faces.find_face(enumerate(noise), affine, 30, modality, 1) is None
    bare = heads.scan(contrast)
    values = np.where(bare.labels == heads.BRAIN, bare.values, bare.values.min())
    planes = enumerate(values.astype(np.float32))
    found = faces.find_face(planes, bare.affine, len(values), modality, 1)
    assert found is None  # a brain without its skull


def test_another_seed_removes_to_another_depth():
    scan = heads.scan("CT")
    fields = [face_of(scan, "CT", seed).field for seed in (1, 2, 1)]
    assert np.array_equal(fields[0], fields[2])
    differ = (fields[0] > 0) != (fields[1] > 0)
    assert 0.02 < differ.sum() / (fields[0] > 0).sum() < 0.3


def test_no_face_is_looked_for_in_other_modalities():
    scan = heads.scan("CT")
    planes = enumerate(scan.values.astype(np.float32))
    assert faces.find_face(planes, scan.affine, len(scan.values), "PT", 1) is None


@pytest.mark.parametrize(
    ("texts", "region"),
    [
        (["HEAD"], "head"),
        (["CT Schädel nativ"], "head"),
        (["IRM cérébrale"], "head"),
        (["RM de cráneo"], "head"),
        (["снимок головы"], "head"),
        (["头颅CT平扫"], "head"),
        (["頭部単純"], "head"),
        (["CHEST", "CT Head Chest Abdomen"], "head"),
        (["Whole Body Bone"], "head"),
        (["ABDOMEN", "t2_haste_tra"], "other"),
        (["HELICAL CHEST"], "other"),
        (["Knie rechts"], "other"),
        (["MRT Oberbauch"], "other"),
        (["腹部CT"], "other"),
        (["axial 5mm", "t1_vibe"], "unknown"),
        (["overhead"], "unknown"),
        ([], "unknown"),
    ],
)
def test_regions_are_told_by_words(texts, region):
    assert faces.region_of(texts) == region


AXIAL = tuple(np.diag([3.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]].ravel())


@pytest.mark.parametrize(
    ("modality", "regions", "affine", "extents", "may"),
    [
        ("CT", ["unknown"], AXIAL, (60, 256, 256), True),
        ("MR", ["head"], AXIAL, (60, 256, 256), True),
        ("PT", ["unknown"], AXIAL, (60, 256, 256), True),
        ("CT", ["other"], AXIAL, (60, 256, 256), False),
        ("CT", ["other", "unknown"], AXIAL, (60, 256, 256), True),
        ("CT", ["head"], AXIAL, (9, 256, 256), False),  # 27 mm high
        ("CT", ["head"], AXIAL, (10, 256, 256), True),
        ("CT", ["unknown"], (), (1, 512, 512), True),
        ("US", ["head"], AXIAL, (60, 256, 256), False),
        ("XC", ["other"], (), (1, 512, 512), True),
    ],
)
def test_which_volumes_may_show_a_face(modality, regions, affine, extents, may):
    assert faces.may_show_face(modality, regions, affine, extents) is may


def test_what_is_left_does_not_repeat_the_face():
    scan, gone = cleaned("CT", "straight")
    body = scan.labels != heads.AIR
    bottom = gone.shape[1] - gone[:, ::-1].argmax(axis=1)  # airways lie behind it
    behind = np.arange(gone.shape[1])[None, :, None] >= bottom[:, None]
    egg = body & (scan.labels != heads.NOSE)
    round_, before, after = (relief(mask, scan) for mask in (egg, body, behind))
    assert before - round_ > 20  # mm by which the nose stands out
    assert abs(after - round_) < 8


def relief(body, scan):
    """Return by how much the middle stands out at the height of the nose, in mm."""
    first = np.where(body.any(axis=1), body.argmax(axis=1), np.nan) * 2.0
    heights = scan.affine[2, 3] + scan.affine[2, 0] * np.arange(len(body))
    sides = scan.affine[0, 3] + scan.affine[0, 2] * np.arange(body.shape[2])
    part = first[(heights > -68) & (heights < -48)]
    middle = np.nanmedian(part[:, np.abs(sides) < 6])
    return np.nanmedian(part[:, (np.abs(sides) > 20) & (np.abs(sides) < 32)]) - middle
