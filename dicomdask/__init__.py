"""Turn any pile of DICOM into a dataset that models can be trained on again and again."""

__version__ = "0.1.0"
