"""Rows as Parquet: a folder of files, each of which is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from internimage.inference.bulk.rows import ClassRows, MakeRow, ObjectRows, Row, as_text

if TYPE_CHECKING:
    import pyarrow

# Rows of a group in a file, which are in memory.
_GROUP = 500
_DIGITS = "[0-9]" * 5


def parquet_files(folder: Path, prefix: str) -> list[Path]:
    """The whole files of a `ParquetFolder`; needs no pyarrow."""
    return sorted(folder.glob(f"{prefix}{_DIGITS}.parquet"))


def load_arrow() -> Any:
    """pyarrow; raises ``ImportError`` with the command that installs it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"Parquet files need pyarrow: pip install 'internimage-torch[parquet]' ({error})") from error
    return pyarrow


def schema(make_row: MakeRow) -> pyarrow.Schema:
    """The columns of a network's rows, with an ``error`` that is null for images that could be read."""
    pa = load_arrow()
    text, number, size = pa.string(), pa.float64(), pa.int32()
    columns: dict[str, Any] = {"image": text}
    if isinstance(make_row, ClassRows):
        columns["top"] = pa.list_(pa.struct({"label": text, "score": number}))
    else:
        columns |= {"width": size, "height": size}
        if isinstance(make_row, ObjectRows):
            mask = pa.struct({"size": pa.list_(size), "counts": text})
            columns["objects"] = pa.list_(
                pa.struct({"label": text, "score": number, "box": pa.list_(number), "mask": mask})
            )
        else:
            columns |= {"map": text, "shares": pa.map_(text, number)}
    return pa.schema({**columns, "error": text})


def parquet_rows(path: Path) -> Iterator[Row]:
    """The names, errors and label maps of a file's rows; raises ``ValueError`` if it is damaged."""
    file = _open(path)
    known = [name for name in ("image", "map", "error") if name in file.schema_arrow.names]
    for batch in file.iter_batches(columns=known):
        for row in batch.to_pylist():
            yield {name: value for name, value in row.items() if value is not None}


def _open(path: Path) -> Any:
    arrow = load_arrow()
    try:
        return arrow.parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}); begin anew with --overwrite") from error


def as_table(rows: Sequence[Row], columns: pyarrow.Schema) -> pyarrow.Table:
    """Rows in memory as Parquet stores them."""
    return load_arrow().Table.from_pylist([_in_unicode(row) for row in rows], schema=columns)


def _in_unicode(row: Row) -> Row:
    return {key: as_text(value) if isinstance(value, str) else value for key, value in row.items()}


class ParquetFolder:
    """A folder of Parquet files in the order of their names, as a `RowFile`.

    Args:
        path: the folder; several parts may share it.
        prefix: of the files' names.
        columns: from `schema`.
        unit: rows that belong together: a file never ends between them, but at the end of all.
        rows: of a file, at least; a crash may lose as many.

    A file is written under a name that readers of Parquet skip, and renamed when it is whole.
    """

    def __init__(self, path: Path, prefix: str, columns: pyarrow.Schema, unit: int, rows: int) -> None:
        self._arrow = load_arrow()
        self.path, self._prefix, self._columns = path, prefix, columns
        self._unit = unit
        self._rows = -(-rows // unit) * unit
        self._group = -(-min(rows, _GROUP) // unit) * unit
        self._waiting: list[Row] = []
        self._number, self._in_file = 0, 0
        self._file: IO[bytes] | None = None
        self._writer: Any = None

    def repair(self, unit: int) -> None:
        """Remove a file that a crash cut, and a last one that ends between rows that belong together."""
        for cut in self.path.glob(f".{self._prefix}{_DIGITS}.parquet.partial"):
            cut.unlink()
        files = parquet_files(self.path, self._prefix)
        if files and _open(files[-1]).metadata.num_rows % unit:
            files.pop().unlink()
        self._number = int(files[-1].stem[-5:]) + 1 if files else 0

    def written(self) -> Iterator[Row]:
        """The names, errors and label maps of the rows that are there."""
        for path in parquet_files(self.path, self._prefix):
            yield from parquet_rows(path)

    def write(self, row: Row) -> None:
        """Append a row."""
        self._waiting.append(row)
        if len(self._waiting) == self._group:
            self._write_group(self._waiting)
            self._waiting = []
            if self._in_file >= self._rows:
                self._end_file()

    def close(self, *, finished: bool) -> None:
        """End the file under way; unless all is ``finished``, only rows that are together are kept."""
        kept = len(self._waiting) if finished else len(self._waiting) // self._unit * self._unit
        if kept or (finished and self._writer is None and not self._number):
            self._write_group(self._waiting[:kept])
        self._waiting = []
        if self._writer is not None:
            self._end_file()

    def _write_group(self, rows: Sequence[Row]) -> None:
        if self._writer is None:
            self.path.mkdir(exist_ok=True)
            self._file = self._partial().open("wb")
            self._writer = self._arrow.parquet.ParquetWriter(self._file, self._columns, compression="zstd")
        self._writer.write_table(as_table(rows, self._columns))
        self._in_file += len(rows)

    def _end_file(self) -> None:
        assert self._file is not None
        self._writer.close()
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._partial().replace(self.path / self._name())
        self._number, self._in_file, self._file, self._writer = self._number + 1, 0, None, None

    def _name(self) -> str:
        return f"{self._prefix}{self._number:05d}.parquet"

    def _partial(self) -> Path:
        return self.path / f".{self._name()}.partial"
