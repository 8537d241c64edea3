"""From cleaned headers and statistics to rows of the dataset's tables. Pure.

A task makes the rows of its own shard; `merge_parts` joins the shards of one volume.
"""

from dicomdask.rows.frames import EncodedFrame, EncodedInstance, Frames
from dicomdask.rows.header import (
    TAGS,
    Header,
    Row,
    attribute,
    constant_header,
    split_header,
    ultrasound_regions,
)
from dicomdask.rows.make import part_of
from dicomdask.rows.merge import merge_parts

__all__ = [
    "TAGS",
    "EncodedFrame",
    "EncodedInstance",
    "Frames",
    "Header",
    "Row",
    "attribute",
    "constant_header",
    "merge_parts",
    "part_of",
    "split_header",
    "ultrasound_regions",
]
