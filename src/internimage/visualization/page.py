"""The page of a run: one HTML file that needs nothing else, with its numbers, pictures, tables and commands."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from internimage.structures import LabelMap
from internimage.visualization import style
from internimage.visualization.classification import check_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two pixels of a figure for each pixel of the page keep its text sharp on dense screens.
FIGURE_DENSITY = 2
CSS_DPI = 96
# Longer tables are folded away until the reader asks for them.
FOLD_ABOVE_ROWS = 30
MISSING = "—"
NUMERIC = re.compile(r"[-+<>~]?[\d.,]+(e[-+]?\d+)?\s?%?")


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Args:
        title: a few words; also what a screen reader says.
        caption: what there is to see.
        image: a Pillow image, shown as it is, or a matplotlib figure, which follows the reader's dark mode.
    """

    title: str
    caption: str
    image: Image.Image | Figure


@dataclass(frozen=True)
class Table:
    """A table of the page; columns of numbers are aligned to the right.

    Args:
        title: a few words.
        caption: what the columns mean, or an empty text.
        header: one name per column.
        rows: each as long as the header; the first cell names the row.
    """

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(
                    f"row {number} of table {self.title!r} has {len(row)} cells but the header has {len(self.header)}"
                )


@dataclass(frozen=True)
class RunReport:
    """All that the page of a run shows; whatever is empty is left out.

    Args:
        title: the name of the run.
        task: what was learned, such as ``image classification``; shown above the title.
        summary: the few numbers that matter, shown as tiles in this order.
        settings: name and value of the settings worth reading.
        pictures: in the order of the page.
        tables: in the order of the page.
        commands: pairs of what a command does and the shell command itself.
        files: pairs of a file's name, relative to the page, and what it is; files that exist become links.
        config_yaml: the complete configuration, folded away.
    """

    title: str
    task: str
    summary: Mapping[str, str | float | int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[tuple[str, str]] = ()
    files: Sequence[tuple[str, str]] = ()
    config_yaml: str = ""


def write_report(path: Path, report: RunReport) -> Path:
    """Write ``report`` as one self-contained HTML file and return its path.

    Folders are made as needed. A page that exists is replaced at once, so a reader never sees half of one.

    Raises:
        ValueError: if ``path`` is a folder, or a picture is neither a Pillow image nor a matplotlib figure.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of the HTML file to write")
    page = _render(report, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def per_class_table(matrix: np.ndarray, labels: LabelMap) -> Table:
    """Precision, recall, F1 and number of images of every class.

    A value that is not defined is shown as a dash: the precision of a class that is never predicted, the recall of
    a class without images, and the F1 of a class that is neither.

    Args:
        matrix: (C, C) counts, rows are true classes and columns predictions.
        labels: the C class names.

    Raises:
        ValueError: if the matrix is not C x C, has negative or missing values, or counts no image.

    >>> table = per_class_table(np.array([[3, 1], [0, 4]]), LabelMap(("cat", "dog")))
    >>> table.rows[0]
    ('cat', '100.0%', '75.0%', '85.7%', 4)
    """
    counts = check_matrix(matrix, labels)
    hits, predicted, support = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    measures = np.stack([_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, predicted + support)])
    rows = [
        (name, *(_percent(value) for value in measures[:, index]), int(support[index]))
        for index, name in enumerate(labels)
    ]
    means = [_percent(float(np.nanmean(values))) for values in measures]
    caption = "Mean over the classes: precision {}, recall {}, F1 {}.".format(*means)
    return Table("Per class", caption, ("class", "precision", "recall", "F1", "images"), rows)


def confusions_table(matrix: np.ndarray, labels: LabelMap, count: int = 10) -> Table:
    """The ``count`` pairs of classes that are confused most often: which class is taken for which other.

    Arguments and errors are those of `per_class_table`; the table has fewer rows if there are fewer confusions.
    """
    counts = check_matrix(matrix, labels)
    support = counts.sum(axis=1)
    wrong = counts - np.diag(counts.diagonal())
    pairs = [divmod(int(place), len(labels)) for place in np.argsort(-wrong, axis=None, kind="stable")[:count]]
    rows = [
        (labels[true], labels[taken], int(wrong[true, taken]), _percent(wrong[true, taken] / support[true]))
        for true, taken in pairs
        if wrong[true, taken] > 0
    ]
    return Table(
        "Most frequent confusions",
        "The share is that of all images of the true class.",
        ("true class", "taken for", "images", "share"),
        rows,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _percent(share: float) -> str:
    return MISSING if np.isnan(share) else f"{100 * share:.1f}%"


def _render(report: RunReport, folder: Path) -> str:
    template = resources.files("internimage.visualization").joinpath("templates/report.html").read_text("utf-8")
    # Predicting needs this module's tables, but no page.
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        report=report,
        tile_columns=_tile_columns(len(report.summary)),
        summary={name: format_value(value) for name, value in report.summary.items()},
        pictures=[_embed(picture) for picture in report.pictures],
        tables=[_lay_out(table) for table in report.tables],
        files=[(name, what, _is_linkable(folder, name)) for name, what in report.files],
        palette=style,
    )


def _tile_columns(count: int) -> int:
    """Three to five columns, and of those the most that leave the fewest places empty."""
    return min((5, 4, 3), key=lambda columns: -count % columns) if count > 5 else max(count, 3)


def format_value(value: str | float | int) -> str:
    """A tile's text: texts as they are, numbers with separators and at most four significant digits after a point.

    >>> format_value(1234567), format_value(0.91234), format_value(1234.5), format_value("5 min")
    ('1,234,567', '0.9123', '1,234', '5 min')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _embed(picture: Picture) -> dict[str, Any]:
    buffer, image = io.BytesIO(), picture.image
    is_figure = not isinstance(image, Image.Image)
    if isinstance(image, Image.Image):
        # PNG knows no CMYK, YCbCr or floating point pictures.
        storable = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
        storable.save(buffer, format="PNG", optimize=True)
        size = image.size
    elif hasattr(image, "savefig"):
        # Without the date and version of the software, the same figure gives the same bytes.
        image.savefig(buffer, format="png", dpi=CSS_DPI * FIGURE_DENSITY, transparent=True, metadata={"Software": None})
        with Image.open(buffer) as stored:
            size = (stored.width // FIGURE_DENSITY, stored.height // FIGURE_DENSITY)
    else:
        raise ValueError(
            f"picture {picture.title!r} is a {type(image).__name__}: give a Pillow image or a matplotlib figure"
        )
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"title": picture.title, "caption": picture.caption, "uri": uri, "size": size, "is_figure": is_figure}


def _lay_out(table: Table) -> dict[str, Any]:
    rows = [[format_value(cell) for cell in row] for row in table.rows]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(table.header)
    numeric = [
        index > 0 and all(cell == MISSING or NUMERIC.fullmatch(cell) for cell in column)
        for index, column in enumerate(columns)
    ]
    return {
        "title": table.title,
        "caption": table.caption,
        "header": list(zip(table.header, numeric, strict=True)),
        "rows": [list(zip(row, numeric, strict=True)) for row in rows],
        "is_folded": len(rows) > FOLD_ABOVE_ROWS,
    }


def _is_linkable(folder: Path, name: str) -> bool:
    return not Path(name).is_absolute() and (folder / name).exists()
