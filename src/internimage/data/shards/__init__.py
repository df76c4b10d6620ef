"""Sets of pictures in tar files (shards), as webdataset reads and writes them, for sets of millions of pictures."""

from internimage.data.shards.shard_set import ShardSet, holds_shards

__all__ = ["ShardSet", "holds_shards"]
