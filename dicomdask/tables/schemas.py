"""The columns of a dataset's tables."""

from typing import Final

import pyarrow as pa

_TEXTS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())
_COUNTS = pa.list_(pa.int64())

STATISTICS: Final = pa.struct(
    {
        "n_values": pa.int64(),
        "n_padding": pa.int64(),
        "n_nonfinite": pa.int64(),
        "min": pa.float64(),
        "max": pa.float64(),
        "mean": pa.float64(),
        "std": pa.float64(),
        "percentile_levels": _NUMBERS,
        "percentiles": _NUMBERS,
        "histogram": _COUNTS,
        "histogram_edges": _NUMBERS,
        "nonzero_fraction": pa.float64(),
    }
)
"""Statistics of the stored values of a volume, padding left out."""

DISTRIBUTION: Final = pa.struct(
    {
        "lows": _NUMBERS,
        "highs": _NUMBERS,
        "counts": _COUNTS,
        "exponent": pa.int64(),
        "total": pa.string(),
        "squares": pa.string(),
    }
)
"""How many values lie where; see `values.Distribution`."""

VOLUME_ATTRIBUTES: Final[dict[str, pa.DataType]] = {
    "PatientID": pa.string(),
    "PatientSex": pa.string(),
    "PatientAge": pa.string(),
    "StudyInstanceUID": pa.string(),
    "SeriesInstanceUID": pa.string(),
    "FrameOfReferenceUID": pa.string(),
    "AccessionNumber": pa.string(),
    "StudyDate": pa.string(),
    "SeriesDate": pa.string(),
    "AcquisitionDate": pa.string(),
    "Modality": pa.string(),
    "Manufacturer": pa.string(),
    "ManufacturerModelName": pa.string(),
    "BodyPartExamined": pa.string(),
    "Laterality": pa.string(),
    "ImageLaterality": pa.string(),
    "ViewPosition": pa.string(),
    "PatientPosition": pa.string(),
    "ImageType": _TEXTS,
    "SOPClassUID": pa.string(),
    "PhotometricInterpretation": pa.string(),
    "BitsStored": pa.int64(),
    "PixelSpacing": _NUMBERS,
    "ImagerPixelSpacing": _NUMBERS,
    "ImageOrientationPatient": _NUMBERS,
    "SliceThickness": pa.float64(),
    "SpacingBetweenSlices": pa.float64(),
    "ConvolutionKernel": _TEXTS,
    "KVP": pa.float64(),
    "MagneticFieldStrength": pa.float64(),
    "EchoTime": pa.float64(),
    "RepetitionTime": pa.float64(),
    "InversionTime": pa.float64(),
    "FlipAngle": pa.float64(),
    "RescaleType": pa.string(),
    "Units": pa.string(),
    "WindowCenter": _NUMBERS,
    "WindowWidth": _NUMBERS,
    "PixelPaddingValue": pa.int64(),
    "LossyImageCompression": pa.string(),
}
"""The DICOM attributes that are columns of tables/volumes, where they are constant."""

VOLUMES: Final = pa.schema(
    {
        "volume_id": pa.string(),
        "revision": pa.string(),
        "path": pa.string(),
        "kind": pa.string(),
        "shape": _COUNTS,
        "dimensions": _TEXTS,
        "dtype": pa.string(),
        "chunks": _COUNTS,
        "shards": _COUNTS,
        "codec": pa.string(),
        "zarr_json": pa.string(),
        "affine": _NUMBERS,
        "spacing_mm": _NUMBERS,
        "units": pa.string(),
        "slope": pa.float64(),
        "intercept": pa.float64(),
        "modality_lut": pa.string(),
        "display": pa.string(),
        "real_world_values": pa.string(),
        "axis_keyword": pa.string(),
        "axis_values": _TEXTS,
        "n_frames": pa.int64(),
        "n_missing": pa.int64(),
        "missing_slices": _COUNTS,
        "n_duplicates": pa.int64(),
        "tilt_degrees": pa.float64(),
        "uniform_spacing": pa.bool_(),
        "statistics": STATISTICS,
        "stored_bytes": pa.int64(),
        "raw_bytes": pa.int64(),
        "warnings": _TEXTS,
        "header": pa.string(),
        "series_key": pa.string(),
        "site_key": pa.string(),
        "device_key": pa.string(),
        "text_look": pa.string(),
        "n_redactions": pa.int64(),
        "faces": pa.string(),
        **VOLUME_ATTRIBUTES,
    }
)

FRAMES: Final = pa.schema(
    {
        "volume_id": pa.string(),
        "revision": pa.string(),
        "series_key": pa.string(),
        "t": pa.int64(),
        "z": pa.int64(),
        "SOPInstanceUID": pa.string(),
        "frame_number": pa.int64(),
        "tile": pa.int64(),
        "source_key": pa.string(),
        "ImagePositionPatient": _NUMBERS,
        "slope": pa.float64(),
        "intercept": pa.float64(),
        "modality_lut": pa.string(),
        "display": pa.string(),
        "time_ms": pa.float64(),
        "header": pa.string(),
    }
)

INSTANCES: Final = pa.schema(
    {
        "volume_id": pa.string(),
        "revision": pa.string(),
        "series_key": pa.string(),
        "source_key": pa.string(),
        "PatientID": pa.string(),
        "StudyInstanceUID": pa.string(),
        "SeriesInstanceUID": pa.string(),
        "SOPInstanceUID": pa.string(),
        "SOPClassUID": pa.string(),
        "TransferSyntaxUID": pa.string(),
        "InstanceNumber": pa.int64(),
        "text_look": pa.string(),
        "n_redactions": pa.int64(),
        "header": pa.string(),
    }
)

REDACTIONS: Final = pa.schema(
    {
        "volume_id": pa.string(),
        "revision": pa.string(),
        "series_key": pa.string(),
        "source_key": pa.string(),
        "SOPInstanceUID": pa.string(),
        "frames": _COUNTS,
        "top": pa.int64(),
        "left": pa.int64(),
        "bottom": pa.int64(),
        "right": pa.int64(),
        "way": pa.string(),
        "score": pa.float64(),
    }
)
"""One row a region that is blanked in the pixels of an instance: rows [top, bottom),
columns [left, right) of the frames as the source has them, from 0. `frames` are frame
numbers of DICOM, from 1, as in `FRAMES`."""

INPUTS: Final = pa.schema(
    {
        "source_key": pa.string(),
        "outcome": pa.string(),
        "stage": pa.string(),
        "code": pa.string(),
        "reason": pa.string(),
        "source_bytes": pa.int64(),
    }
)

FINGERPRINTS: Final = pa.schema(
    {
        "volume_id": pa.string(),
        "revision": pa.string(),
        "series_key": pa.string(),
        "Modality": pa.string(),
        "units": pa.string(),
        "shape": _COUNTS,
        "spacing_mm": _NUMBERS,
        "intensities": DISTRIBUTION,
    }
)
"""One row a volume: what the fingerprint of a dataset is pooled from."""

SCHEMAS: Final[dict[str, pa.Schema]] = {
    "volumes": VOLUMES,
    "frames": FRAMES,
    "instances": INSTANCES,
    "inputs": INPUTS,
    "fingerprints": FINGERPRINTS,
    "redactions": REDACTIONS,
}
"""The tables of a dataset."""

PART: Final = pa.schema(
    {
        "volume": pa.struct(list(VOLUMES)),
        "frames": pa.list_(pa.struct(list(FRAMES))),
        "instances": pa.list_(pa.struct(list(INSTANCES))),
        "redactions": pa.list_(pa.struct(list(REDACTIONS))),
        "values": _COUNTS,
        "counts": _COUNTS,
        "n_padding": pa.int64(),
        "n_nonfinite": pa.int64(),
        "intensities": DISTRIBUTION,
    }
)
"""What one task hands to the commit, de-identified: one row of nested tables."""
