"""Faces: which volumes may show one, where it is, and how it is taken out.

Pure arithmetic on arrays, an affine and words: no file is read here, and nothing that
identifies is kept. What finds a face needs scipy, the extra `faces`.
"""

from dicomdask.faces.face import Face
from dicomdask.faces.find import face_mask, find_face
from dicomdask.faces.flag import may_show_face
from dicomdask.faces.grid import sampled
from dicomdask.faces.needed import require
from dicomdask.faces.words import Region, region_of

__all__ = [
    "Face",
    "Region",
    "face_mask",
    "find_face",
    "may_show_face",
    "region_of",
    "require",
    "sampled",
]
