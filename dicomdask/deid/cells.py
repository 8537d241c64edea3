"""Text from elsewhere as the header that would hold it: the way in for labels."""

from collections.abc import Mapping
from typing import Final

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

UTF8: Final = "utf8"


def to_header(values: Mapping[str, str]) -> Dataset:
    """Return the header in which these texts stand, as pydicom reads it from a file.

    So whatever is cut off, split or replaced when a header is read happens here too.

    Parameters
    ----------
    values
        Text by DICOM keyword; identified.
    """
    elements = [_raw(keyword, text) for keyword, text in values.items()]
    header = Dataset({element.tag: element for element in elements})
    header.set_original_encoding(False, True, UTF8)
    return header


def _raw(keyword: str, text: str) -> RawDataElement:
    tag = Tag(tag_for_keyword(keyword) or 0)
    data = text.encode("utf-8")
    return RawDataElement(
        tag, dictionary_VR(tag), len(data), data, 0, False, True, is_raw=True
    )
