"""Rows as JSON lines: one file, readable while it grows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from internimage.inference.bulk.rows import Row

# A reader of the growing file waits no longer, and a crash of the machine loses no more.
_SECONDS = 5.0


def json_line(row: Row) -> bytes:
    r"""A row as a line of JSON in UTF-8; a name that is no text is escaped, and JSON reads it back as it was.

    >>> json_line({"image": "caf\udce9.png"})
    b'{"image": "caf\\udce9.png"}\n'
    """
    return f"{json.dumps(row, ensure_ascii=False)}\n".encode("utf-8", errors="backslashreplace")


class JsonLines:
    """A file of JSON lines, as a `RowFile`.

    A crash may cut its last line; `repair` removes what is cut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._flushed = time.monotonic()

    def repair(self, unit: int) -> None:
        """Cut the file after its last whole row whose number is a multiple of ``unit``."""
        if not self.path.exists():
            return
        kept = end = 0
        with self.path.open("r+b") as file:
            for number, line in enumerate(file, 1):
                end += len(line)
                if line.endswith(b"\n") and number % unit == 0:
                    kept = end
            file.truncate(kept)

    def written(self) -> Iterator[Row]:
        """The rows that are there."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row: Any = json.loads(line)
                    assert isinstance(row["image"], str)
                except (ValueError, TypeError, KeyError, AssertionError):
                    raise ValueError(
                        f"line {number:,} of {self.path} is no row of predictions; remove it and all after it, or "
                        "begin anew with --overwrite"
                    ) from None
                yield row

    def write(self, row: Row) -> None:
        """Append a row."""
        if self._file is None:
            self._file = self.path.open("ab")
        self._file.write(json_line(row))
        if time.monotonic() - self._flushed > _SECONDS:
            self._flush(self._file)

    def close(self, *, finished: bool) -> None:
        """Everything is on the disk afterwards; no rows at all are an empty file."""
        if self._file is None:
            self._file = self.path.open("ab")
        with self._file:
            self._flush(self._file)
        self._file = None

    def _flush(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._flushed = time.monotonic()
