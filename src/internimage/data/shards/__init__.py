"""Sets of pictures in tar files (shards), as webdataset reads and writes them, for sets of millions of pictures."""

from internimage.data.shards.dataset import ShardDataset, ShardSplits, find_shards
from internimage.data.shards.order import epoch_order
from internimage.data.shards.packing import Packed, pack
from internimage.data.shards.scan import index_folder
from internimage.data.shards.shard_set import CACHE_GIB, ShardSet, holds_shards

__all__ = [
    "CACHE_GIB",
    "Packed",
    "ShardDataset",
    "ShardSet",
    "ShardSplits",
    "epoch_order",
    "find_shards",
    "holds_shards",
    "index_folder",
    "pack",
]
