"""``internimage visualize run RUN``: a run's curves, confusions and predictions as figures, from its folder alone."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from PIL import Image

from internimage.visualization.curves import METRICS_FILE, curves_figure, read_rows
from internimage.visualization.evaluation import EVALUATION_FILE, read_evaluation
from internimage.visualization.style import new_figure

# Which figures are ours, by their checksums: of any other file nobody asked us to make a new version.
_OWN_FILE = "figures.json"
# Of a figure at its own size.
_DPI = 150
# The date and the version of the software would make the same figure another file.
_NO_DATE: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def parser() -> ArgumentParser:
    """The options of this picture."""
    parser = ArgumentParser(description="Draw a run's figures anew: no weights and no images are needed.")
    parser.add_argument("run", type=str, help="the run's folder")
    parser.add_argument("--output", type=str | None, default=None, help="folder of the figures; default RUN/figures")
    parser.add_argument("--format", choices=sorted(_NO_DATE), default="png", help="of the files")
    parser.add_argument("--dpi", type=int, default=_DPI, help="dots per inch; pictures on sheets grow with them")
    return parser


def run(options: Namespace) -> int:
    """Write the figures; returns the exit status."""
    folder = Path(options.run)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give that of a run")
    if not 30 <= options.dpi <= 1200:
        raise ValueError(f"--dpi must be from 30 to 1200, got {options.dpi}")
    figures = _figures(folder, options.dpi / _DPI)
    output = folder / "figures" if options.output is None else Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.{options.format}": figure for name, figure in figures.items()}
    own = _own_files(output)
    _check_free(output, list(files), own)
    for name, figure in files.items():
        data = _as_bytes(figure, options.format, options.dpi)
        own[name] = hashlib.sha256(data).hexdigest()
        _write(output / name, data)
        _write(output / _OWN_FILE, (json.dumps(own, indent=1) + "\n").encode("utf-8"))
        print(output / name)
    return 0


def _figures(folder: Path, enlarge: float) -> dict[str, Any]:
    """Pillow images and matplotlib figures by their names."""
    figures: dict[str, Any] = {}
    if rows := read_rows(folder / METRICS_FILE):
        figures["curves"] = curves_figure(rows)
    if (folder / EVALUATION_FILE).is_file():
        pictures = read_evaluation(folder).pictures(enlarge)
        figures |= {name: picture.image for name, picture in pictures.items()}
    elif figures:
        hint = f"internimage validate --run {folder} writes it"
        print(f"{folder} holds no {EVALUATION_FILE}, so there are only curves; {hint}", file=sys.stderr)
    if not figures:
        raise ValueError(f"{folder} holds neither {METRICS_FILE} nor {EVALUATION_FILE}; give the folder of a run")
    return figures


def _own_files(output: Path) -> dict[str, str]:
    path = output / _OWN_FILE
    if not path.is_file():
        return {}
    try:
        return {str(name): str(checksum) for name, checksum in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not ours; choose another --output") from None


def _check_free(output: Path, names: list[str], own: dict[str, str]) -> None:
    """Files that this command wrote and nobody changed since may be replaced."""
    foreign = [
        name
        for name in names
        if (output / name).exists() and own.get(name) != hashlib.sha256((output / name).read_bytes()).hexdigest()
    ]
    if foreign:
        raise ValueError(f"{output} holds {', '.join(foreign)} of another origin; choose another --output")


def _as_bytes(figure: Any, form: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    if isinstance(figure, Image.Image):
        if form == "png":
            figure.save(buffer, "PNG", dpi=(dpi, dpi))
            return buffer.getvalue()
        figure = _framed(figure, dpi)
    figure.savefig(buffer, format=form, dpi=dpi, facecolor="white", metadata=_NO_DATE[form])
    return buffer.getvalue()


def _framed(image: Image.Image, dpi: int) -> Any:
    """A figure that shows this picture and nothing else, pixel for pixel."""
    figure = new_figure(image.width / dpi, image.height / dpi)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(image, interpolation="none", aspect="auto")
    return figure


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
