"""The errors of dicomdask, and the codes that say what became of an input.

Every error is one sentence that says what, where, what was wanted and what to do.
No message ever holds the value of a DICOM element: messages reach logs, receipts and
tables, and those may be read by people who must not know the patient.
"""

from typing import Final

CODES: Final[dict[str, str]] = {
    # list and index
    "empty-file": "The file has no bytes.",
    "unreadable": "The file could not be read; check its permissions, then run again.",
    "outside-source": "A link leads out of the source; name the place it leads to as a "
    "source too.",
    "archive": "Archives are not opened yet; unpack it, then run again.",
    "not-dicom": "The content is not DICOM.",
    "bad-header": "The header is damaged: it could not be parsed up to the pixels.",
    "missing-pixels": "The object is an image by its class, but has no pixels.",
    "missing-uid": "Patient, study, series or instance cannot be told apart: "
    "a Study, Series, SOP Class or SOP Instance UID is missing.",
    "dicomdir": "A DICOMDIR lists other files; it holds no pixels.",
    "no-pixels": "The object holds no pixels (a report, a plan, a structure set, …).",
    "filtered": "Left out by the --where filter of this run.",
    "not-selected": "Left out by --limit or by hand from the plan.",
    "forgotten": "The patient was removed with `dicomdask forget`.",
    # resolve
    "duplicate": "Another copy with the same SOP Instance UID and pixels is stored.",
    "conflict": "Copies with the same SOP Instance UID hold different pixels; "
    "remove the wrong one, then run again.",
    # plan
    "burned-in-risk": "May hold text burned into the pixels, and nothing has looked: "
    "only monochrome CT, MR, PT and NM that are neither SECONDARY nor marked pass. "
    "Have them looked at and cleaned by --option clean-pixels, which needs "
    '`pip install "dicomdask[text]"`; or, if you have looked yourself, say what is '
    "there by a [[pixels]] rule in a policy file, or allow the modality with "
    "--trust-pixels.",
    "colour": "Colour of four samples, or in a form that is none of RGB, YBR and "
    "palettes of 8 or 16 bits, is not stored.",
    "enhanced-multiframe": "Enhanced multi-frame objects whose frames lie in another "
    "space than the patient's (slides, eyes, vessels) are not stored yet.",
    "functional-groups": "The functional groups that describe the frames are missing, "
    "or not as many as the frames.",
    "multiframe": "The vectors and positions of a multi-frame NM object do not tell "
    "its frames apart, or it is a multi-frame RT Dose, which is not stored yet.",
    "segmentation": "Segmentations are not stored yet.",
    "mosaic": "The header of a Siemens mosaic lacks the number, the normal or the "
    "spacing of its slices, so where they lie is not known.",
    "modality-lut": "The Modality LUT is damaged.",
    "bit-depth": "This BitsAllocated, BitsStored or HighBit is not stored.",
    "bad-image": "The attributes that describe the pixels are missing or contradict "
    "each other.",
    "bad-geometry": "Orientation, position or spacing is damaged.",
    "missing-slices": "Slices are missing inside the series; use --on-irregular split "
    "to store the pieces, or pad to mark them.",
    "nonuniform-spacing": "The slices are not evenly spaced and do not fall into a few "
    "even pieces.",
    "not-a-volume": "The slices do not step along one line.",
    "repeated-positions": "Several slices lie at one position, and nothing in the "
    "header tells them apart.",
    "too-large": "The pixels need more memory than a worker has; "
    "give workers more with --memory.",
    # encode
    "no-decoder": "No installed decoder reads this transfer syntax.",
    "truncated": "The pixel data are shorter than the header says.",
    "bad-pixels": "The pixel data could not be decoded.",
    "decoder-crash": "The decoder crashed or hung, twice in a process of its own; "
    "the other inputs are not affected.",
    "source-changed": "The file changed or vanished after it was indexed; run again.",
    "series-incomplete": "Sources of slices that are already stored are gone, so the "
    "series was left as it is; bring them back, then run again.",
    "unclean-faces": "The volume may show a face, and no head was found in it with "
    "confidence, so no face could be removed and nothing was kept of it; leave out the "
    "volume, or --option clean-faces.",
    # commit
    "series-elsewhere": "Another work directory stored other slices of this series; "
    "index all of its sources in one run.",
    # deidentify
    "unsupported-object": "The policy cannot clean this kind of object (a document, a "
    "presentation state, a waveform, …), so it was not passed.",
    "unclean-stream": "Pixels in this transfer syntax cannot be cleaned of comments; "
    "transcode them first.",
    # text in the pixels
    "unclean-pixels": "The pixels could not be looked at for text, or not be blanked "
    "where it stands, so none of them was kept; transcode them to an uncompressed "
    "transfer syntax, or leave the instance out.",
    # anywhere
    "deid-failed": "The header could not be de-identified, so nothing of it was kept.",
    "unexpected": "An unforeseen error; the sentence names its class only.",
    "stored": "Stored.",
}
"""Every code an outcome can carry, with the sentence that explains it."""


class DicomDaskError(Exception):
    """The base of every error that dicomdask raises on purpose."""


class SourceError(DicomDaskError, ValueError):
    """A source cannot be listed: it does not exist, or holds no DICOM."""


class NoDicomError(SourceError):
    """The sources were listed, and no file of them is DICOM."""


class StoreError(DicomDaskError, ValueError):
    """A store or a work directory is not what it should be."""


class StorageError(DicomDaskError, OSError):
    """A distant store denies access or does not answer."""


class CommitConflictError(StoreError):
    """Another run made the commit first."""


class ForgottenError(StoreError):
    """A patient was forgotten after this run made its plan."""


class PlanError(DicomDaskError, ValueError):
    """A plan, a receipt or an option cannot be used."""


class ClusterError(DicomDaskError, RuntimeError):
    """The scheduler is gone, or workers keep dying; what has a receipt is kept."""


class WorkerError(DicomDaskError, RuntimeError):
    """A process of a loader ended before it had handed over its batch."""


class OptionError(PlanError):
    """An option cannot be used; a command ends with the exit code of wrong usage."""


class TableError(DicomDaskError, ValueError):
    """A table of labels cannot be read; rows are named by number."""


class SplitError(DicomDaskError, ValueError):
    """A split would let a patient be on two sides, or cannot be made."""


class PolicyError(DicomDaskError, ValueError):
    """A policy cannot be read, or a key is missing or too short."""


class ReadError(DicomDaskError, OSError):
    """An array of the dataset cannot be read: missing, damaged or cut short."""


class ShardError(ReadError):
    """A shard is missing, damaged, cut short, or lacks a chunk.

    Attributes
    ----------
    shard
        Its path below the dataset.
    volume_id
        The volume that was read, where it was read as one.
    """

    shard: str = ""
    volume_id: str = ""


class BatchError(DicomDaskError, ValueError):
    """Boxes cannot become one array: their shapes or dtypes differ."""


class InputError(DicomDaskError, ValueError):
    """One input cannot be stored; it becomes an outcome with this code.

    Parameters
    ----------
    code
        One of `CODES`.
    reason
        A sentence without any value of an element; by default the code's own.
    """

    def __init__(self, code: str, reason: str | None = None) -> None:
        self.code = code
        self.reason = reason or CODES[code]
        super().__init__(self.reason)

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str]]:
        return type(self), (self.code, self.reason)
