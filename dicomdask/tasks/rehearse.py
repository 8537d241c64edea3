"""Rehearse: do once in the process apart what each of its forks would do first.

Tables are read, patterns are compiled and decoders looked up at their first use. What a
fork does for itself is lost with it, so a made file is cleaned before any forks.
"""

import io
from contextlib import suppress
from typing import Any, Final

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomdask import deid, faces, header, pixels, rows
from dicomdask.errors import InputError
from dicomdask.model import SourceFile
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key

_ELEMENTS: Final[dict[str, Any]] = {
    "SOPClassUID": CTImageStorage,
    "SOPInstanceUID": "1.2.3",
    "StudyInstanceUID": "1.2",
    "SeriesInstanceUID": "1.2.1",
    "Modality": "CT",
    "Manufacturer": "MADE",
    "StudyDate": "20000101",
    "StudyTime": "120000",
    "StudyDescription": "MADE",
    "SeriesDescription": "MADE",
    "ProtocolName": "MADE",
    "BodyPartExamined": "HEAD",
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "PatientName": "MADE^UP",
    "PatientID": "MADE",
    "PatientAge": "050Y",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [1, 1],
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
    "WindowCenter": 0,
    "WindowWidth": 1,
    "Rows": 2,
    "Columns": 2,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "PixelData": bytes(8),
}


def rehearse(policy: Policy, key: Key) -> None:
    """Read, decode and clean a made file of one image."""
    data = _made_file()
    dataset = header.read_dataset(data)
    header.read_instance(io.BytesIO(data), SourceFile("", len(data), ""))
    decoder = pixels.FrameDecoder(dataset)
    decoder.decode(0)
    pixels.read_meaning(dataset, decoder, 0)
    faces.region_of(header.body_texts(dataset))
    header.frame_times(dataset)
    rows.split_header(deid.header_json(deid.clean_header(dataset, policy, key)))
    with suppress(InputError):  # files are not cleaned by the policy `none`
        deid.clean_file(dataset, policy, key)


def _made_file() -> bytes:
    dataset, file = Dataset(), io.BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in _ELEMENTS.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
