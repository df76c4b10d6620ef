"""Where rows are on a disk: what is there, whose it is, and how it is removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, Protocol, get_args

from internimage.data.inputs import NamedImage
from internimage.inference.bulk.blocks import Blocks, block_files
from internimage.inference.bulk.json_lines import JsonLines
from internimage.inference.bulk.parquet import ParquetFolder, load_arrow, parquet_files, parquet_rows, schema
from internimage.inference.bulk.record import Record
from internimage.inference.bulk.rows import CLASSES, MAP_NAME, MakeRow, Row, as_text

Format = Literal["jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)


class RowFile(Protocol):
    """Rows on a disk, appended in order; what a crash leaves of them is whole after `repair`."""

    def repair(self, unit: int) -> None:
        """Remove what a crash cut, and rows after the last that ``unit`` divides."""
        ...

    def written(self) -> Iterator[Row]:
        """The rows that are there, at least their image, error and map; raises ``ValueError`` if they are damaged."""
        ...

    def write(self, row: Row) -> None:
        """Append a row."""
        ...

    def close(self, *, finished: bool) -> None:
        """Put all rows onto the disk; ``finished`` if no more will come."""
        ...


@dataclass(frozen=True)
class Place:
    """Where the rows of one part of the images go.

    Args:
        output: the folder.
        format: JSON lines or Parquet.
        part: (number, count), as for `ImageInputs`.
        rows_per_file: about how many, where rows go into several files.
    """

    output: Path
    format: Format
    part: tuple[int, int] = (1, 1)
    rows_per_file: int = 20_000

    @property
    def record(self) -> Record:
        """What the run was asked for."""
        return Record(self.output / f"{self._stem()}.state.json")

    def rows(self, make_row: MakeRow, unit: int) -> RowFile:
        """The rows; raises ``ImportError`` if pyarrow is missing."""
        if self.format == "jsonl":
            return JsonLines(self._lines)
        return ParquetFolder(self._folder, self._prefix, schema(make_row), unit, self.rows_per_file)

    def files(self) -> list[Path]:
        """What an earlier run of this part has written, in any format, without the label maps."""
        candidates = [self.record.path, self._lines, *parquet_files(self._folder, self._prefix)]
        blocks = block_files(self._blocks) if self.part == (1, 1) else []
        return [path for path in candidates if path.exists()] + blocks

    def blocks(self, make_row: MakeRow) -> Blocks:
        """The rows in a file per block of images, for many writers; raises ``ImportError`` if pyarrow is missing."""
        if self.format == "parquet":
            load_arrow()
        return Blocks(self._blocks.absolute(), self.format, make_row)

    @property
    def _blocks(self) -> Path:
        return self.output / "predictions"

    @property
    def _lines(self) -> Path:
        return self.output / f"{self._stem()}.jsonl"

    @property
    def _folder(self) -> Path:
        return self.output / "predictions.parquet"

    @property
    def _prefix(self) -> str:
        return "" if self.part == (1, 1) else f"{self._of()}-"

    def _stem(self) -> str:
        return "predictions" if self.part == (1, 1) else f"predictions-{self._of()}"

    def _of(self) -> str:
        number, total = self.part
        return f"{number:0{len(str(total))}d}-of-{total}"


def remove(place: Place) -> None:
    """Remove what an earlier run of this part has written, in any format, and the label maps that its rows name."""
    for path in place.files():
        # Damaged rows name no label maps.
        with suppress(ValueError, ImportError):
            for row in read_rows(path):
                label_map = str(row.get("map", ""))
                if MAP_NAME.fullmatch(label_map):
                    (place.output / label_map).unlink(missing_ok=True)
                    (place.output / CLASSES).unlink(missing_ok=True)
    for path in place.files():
        path.unlink()


def read_rows(path: Path) -> Iterator[Row]:
    """The rows in a file of either format, at least their image, error and label map; none in another file.

    Raises:
        ValueError: the file is damaged.
        ImportError: it is Parquet, and pyarrow is missing.
    """
    if path.suffix == ".jsonl":
        yield from JsonLines(path).written()
    elif path.suffix == ".parquet":
        yield from parquet_rows(path)


def check_rows(rows: Sequence[Row], images: Sequence[NamedImage], output: Path) -> None:
    """Raise ``ValueError`` unless the rows are those of the images, or of the first of them."""
    for row, image in zip_longest(rows, images[: len(rows)]):
        if image is None or row["image"] not in (image.name, as_text(image.name)):
            now = "now there is no such image" if image is None else f"now {image.name} is in its place"
            raise ValueError(
                f"the rows in {output} hold {row['image']}, but {now}: images were added, removed or renamed; begin "
                "anew with --overwrite, or choose another --output"
            )
