"""Standard Zarr v3 shards as bytes: encode one, read a box out of many.

A shard is `sharding_indexed` with its index at the end (bytes, then crc32c); its inner
chunks are little endian bytes, perhaps blosc, then crc32c. Storage is injected. There
are no locks, and the threads that decode large reads belong to one process, so that
readers work in many threads and survive a fork.
"""

from dicomdask.shards.codec import ABSENT, encode_shard
from dicomdask.shards.metadata import (
    CODECS,
    CRC32C,
    KEY_ENCODING,
    LITTLE,
    ArrayMeta,
    codec_chain,
    parse_metadata,
    shard_key,
)
from dicomdask.shards.reader import ShardReader
from dicomdask.shards.wanted import Request

__all__ = [
    "ABSENT",
    "CODECS",
    "CRC32C",
    "KEY_ENCODING",
    "LITTLE",
    "ArrayMeta",
    "Request",
    "ShardReader",
    "codec_chain",
    "encode_shard",
    "parse_metadata",
    "shard_key",
]
