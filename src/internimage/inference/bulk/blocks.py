"""Rows in a file per block of images, for many writers: each file is whole or not there."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from internimage.inference.bulk.json_lines import json_line
from internimage.inference.bulk.parquet import as_table, load_arrow, schema
from internimage.inference.bulk.rows import MakeRow, Row

_DIGITS = 10


@dataclass(frozen=True)
class Blocks:
    """The files of all blocks.

    Args:
        folder: made if missing.
        format: ``jsonl`` or ``parquet``.
        make_row: what the rows are of.
    """

    folder: Path
    format: str
    make_row: MakeRow

    def path(self, position: int) -> Path:
        """The file of the block whose first image has this position: in the order of names, rows are in order."""
        return self.folder / f"{position:0{_DIGITS}d}.{self.format}"

    def write(self, position: int, rows: Sequence[Row]) -> None:
        """Write a block; the same one again replaces it."""
        self.folder.mkdir(exist_ok=True)
        path = self.path(position)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        if self.format == "jsonl":
            partial.write_bytes(b"".join(map(json_line, rows)))
        else:
            load_arrow().parquet.write_table(as_table(rows, schema(self.make_row)), partial, compression="zstd")
        partial.replace(path)

    def sweep(self) -> None:
        """Remove what killed writers left."""
        for partial in self.folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)


def block_files(folder: Path) -> list[Path]:
    """The files of blocks in either format, in order."""
    return sorted(path for suffix in ("jsonl", "parquet") for path in folder.glob(f"{'[0-9]' * _DIGITS}.{suffix}"))
