"""Label maps as files: of scenes, and of colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internimage.data.images import ImageReadError, images_below, read_as
from internimage.data.segmentation.palettes import label_image
from internimage.data.segmentation.rules import CLASSES_FILE
from internimage.data.segmentation.sources import SceneMaps
from internimage.structures import IGNORED, Colour, LabelMap

_NONE, _SEVERAL = -1, -2
_SHOWN = 3


def export_scene_maps(directory: Path | str, *scenes: SceneMaps) -> list[Path]:
    """Write the label maps of scenes to ``labels/<split>`` and the classes to ``classes.txt``; return the folders.

    Args:
        directory: where `export_coco` has written the pictures.
        scenes: those of each split.

    Raises:
        ValueError: there are files in one of the folders, or class names.
    """
    root = Path(directory)
    folders = [root / "labels" / each.scenes.split for each in scenes]
    there = [
        path for path in (root / CLASSES_FILE, *folders) if path.is_file() or (path.is_dir() and any(path.iterdir()))
    ]
    if there:
        raise ValueError(f"{', '.join(map(str, there))} would be overwritten; give another folder")
    for folder, source in zip(folders, scenes, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(len(source)):
            labels_HW = source.scenes.label_map(index)
            label_image(labels_HW, source.palette).save(folder / f"{source.name(index)}.png")
    (root / CLASSES_FILE).write_text("".join(f"{name}\n" for name in scenes[0].labels), encoding="utf-8")
    return folders


def convert_colours(
    folder: Path | str,
    output: Path | str,
    labels: LabelMap,
    palette: Sequence[Colour],
    ignored: Sequence[Colour] = (),
) -> list[Path]:
    """Write label maps in colour as class numbers, PNG files of the same names in ``output``; return their paths.

    Nothing is written if anything is wrong.

    Args:
        folder: is searched through all its subfolders.
        output: where the new files go.
        labels: the classes.
        palette: the colour of each class.
        ignored: colours of pixels of no class.

    Raises:
        ValueError: no images there, files that can't be read or hold other colours (in how many files, and of the
            first three which colours, in how many pixels), or a file would be overwritten.
    """
    folder, output = Path(folder), Path(output)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the folder of the label maps in colour")
    sources = images_below(folder)
    if not sources:
        raise ValueError(f"{folder} holds no images")
    targets = [output / path.relative_to(folder).with_suffix(".png") for path in sources]
    if len(set(targets)) < len(targets):
        double = next(path for path in targets if targets.count(path) > 1)
        raise ValueError(f"several files in {folder} would become {double}; keep one of them")
    if there := [path for path in targets if path.exists()]:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ValueError(f"{there[0]}{more} would be overwritten; move it away, or give another folder")
    table = _ColourTable(labels, palette, ignored)
    faults = [fault for path in sources if (fault := _fault(path, table)) is not None]
    if faults:
        number = "one file" if len(faults) == 1 else f"{len(faults):,} files"
        raise ValueError(f"{number} of {len(sources):,} can't be converted: {'; '.join(faults[:_SHOWN])}")
    for source, target in zip(sources, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        label_image(table.classes_of(_codes(source)).astype(np.uint8), tuple(palette)).save(target)
    return targets


class _ColourTable:
    """The class of each of the 16.8 million colours."""

    def __init__(self, labels: LabelMap, palette: Sequence[Colour], ignored: Sequence[Colour]) -> None:
        self.labels, self.palette = labels, [tuple(each) for each in palette]
        self._classes = np.full(2**24, _NONE, np.int16)
        for index, colour in enumerate(self.palette):
            self._classes[_code(colour)] = _SEVERAL if self.palette.count(colour) > 1 else index
        for colour in ignored:
            self._classes[_code(colour)] = IGNORED

    def classes_of(self, codes_HW: NDArray[np.int32]) -> NDArray[np.int16]:
        return self._classes[codes_HW]

    def complaint(self, code: int, count: int) -> str:
        colour = (code >> 16, code >> 8 & 255, code & 255)
        if self._classes[code] == _NONE:
            meaning = "which is no class's"
        else:
            names = [name for name, each in zip(self.labels, self.palette, strict=True) if each == colour]
            meaning = f"which stands for {' and '.join(names)}"
        return f"the colour {', '.join(map(str, colour))} in {count:,} pixels, {meaning}"


def _fault(path: Path, table: _ColourTable) -> str | None:
    """What is wrong with a file, or None."""
    try:
        codes = _codes(path)
    except ImageReadError as error:
        return str(error)
    unknown = codes[table.classes_of(codes) < 0]
    if not unknown.size:
        return None
    found, counts = np.unique(unknown, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    listed = [table.complaint(int(found[at]), int(counts[at])) for at in order[:_SHOWN]]
    more = [f"and {len(found) - _SHOWN:,} more such colours"] if len(found) > _SHOWN else []
    return f"{path} holds {', '.join([*listed, *more])}"


def _codes(path: Path) -> NDArray[np.int32]:
    """(H, W): the colour of each pixel as one number."""
    pixels_HWC = np.asarray(read_as(path, _colours)).astype(np.int32)
    return pixels_HWC[..., 0] << 16 | pixels_HWC[..., 1] << 8 | pixels_HWC[..., 2]


def _colours(image: Image.Image) -> Image.Image:
    if image.format == "JPEG":
        raise ValueError("it is a JPEG file, which blurs colours along edges; convert the original, a PNG file")
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise ValueError(f"it is not in colour (mode {image.mode})")
    return image.convert("RGB")


def _code(colour: Sequence[int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue
