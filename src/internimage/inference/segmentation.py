"""Naming every pixel of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from internimage.data import ImageReadError
from internimage.data.inputs import NamedImage
from internimage.data.segmentation.dataset import view
from internimage.data.segmentation.palettes import find_palette
from internimage.inference.loading import pick_device
from internimage.inference.reading import ImageSource, in_batches, open_image
from internimage.inference.scanning import Look, label_map, probabilities, scaled
from internimage.model import Checkpoint
from internimage.model.checkpoints.segmenter_files import load_segmenter
from internimage.structures import LabelMap, SegmentationMap, Viewing

_OTHERS = "its training diverged or the file is damaged: use other weights"
# Of pictures at their own size, where the weights know no window.
_WINDOW = (512, 512)


class Segmenter:
    """A trained segmenter, called with images.

    Args:
        source: a weight file, a run's folder, a training checkpoint, a released ``.pth``, or a hub id.
        device: for example ``"cpu"`` or ``"cuda"``; the fastest one here by default.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.
        scales: look at each image at several sizes, such as ``(0.75, 1, 1.25)`` times that of the training; what they
            say is averaged.
        flip: look at each image also from left to right.
        own_size: look at each image at its own size instead of that of the training, through windows; for images
            much larger than those of the training.
        window: height and width in pixels of the windows; by default the weights' own, or the whole image.
        stride: from one window to the next, down and across; by default two thirds of the window.
        probabilities: keep those of every class, 2 bytes per class and pixel.

    Attributes:
        model: the network, in evaluation mode.
        labels: class names.
        palette: a colour per class.
        viewing: how images become inputs.

    Through windows, memory holds scores of as many rows of an image as a window has, whatever its height.

    Raises:
        ImportError: transformers is missing, and the weights' head is made of its parts.
        ValueError: no segmenter's weights, weights that are no numbers, or a value outside its range.

    >>> import internimage, tempfile, pathlib
    >>> from internimage.model.checkpoints.segmenter_files import save_segmenter
    >>> from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
    >>> config = SegmenterConfig.from_variant("internimage_femto", num_classes=2, head="segformer")
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "roads.safetensors"
    >>> model, labels = InternImageSegmenter(config), LabelMap(("sky", "road"))
    >>> _ = save_segmenter(model, file, labels=labels, viewing=Viewing((64, 64)))
    >>> Segmenter(file, device="cpu")(Image.new("RGB", (80, 60))).labels.shape
    (60, 80)
    """

    def __init__(
        self,
        source: str | Path | Checkpoint,
        *,
        device: str | None = None,
        ema: bool | None = None,
        scales: Sequence[float] = (),
        flip: bool = False,
        own_size: bool = False,
        window: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        probabilities: bool = False,
    ) -> None:
        check_scales(scales)
        self.device = pick_device(device)
        loaded = load_segmenter(source, ema=ema)
        self.model, self._path = loaded.model.to(self.device), loaded.path
        # Such weights give every pixel some class, and nobody would notice.
        if not torch.stack([each.isfinite().all() for each in self.model.state_dict().values()]).all():
            raise ValueError(f"{self._path} holds weights that are not finite; {_OTHERS}")
        classes = loaded.model.config.num_classes
        self.labels = loaded.labels or LabelMap.numbered(classes)
        self.palette = loaded.palette or find_palette(self.labels)
        self.viewing = _viewing(loaded.viewing, own_size, window, stride)
        self.keeps_probabilities = probabilities
        self._scales, self._flip = tuple(scales), flip

    @overload
    def __call__(self, images: ImageSource, *, batch_size: int = 1) -> SegmentationMap: ...
    @overload
    def __call__(self, images: Sequence[ImageSource], *, batch_size: int = 1) -> list[SegmentationMap]: ...
    def __call__(
        self, images: ImageSource | Sequence[ImageSource], *, batch_size: int = 1
    ) -> SegmentationMap | list[SegmentationMap]:
        """One `SegmentationMap` for one image, a list of them for a list.

        Args:
            images: a path, encoded bytes, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), or a list of them.
            batch_size: windows of an image that go through the network together.

        Raises:
            ImageReadError: an image can't be read; `stream` goes on instead.
            ValueError: the network's scores are no numbers.
        """
        single = isinstance(images, str | Path | bytes | Image.Image | np.ndarray)
        results: list[SegmentationMap] = []
        for result in self.stream([images] if single else images, batch_size=batch_size):
            if isinstance(result, ImageReadError):
                raise result
            results.append(result)
        return results[0] if single else results

    def stream(
        self, images: Iterable[ImageSource | NamedImage], *, batch_size: int = 1, workers: int = 0
    ) -> Iterator[SegmentationMap | ImageReadError]:
        """A result per image in order; an image that can't be read gives its error instead of ending the run.

        Args:
            images: asked for as they are needed.
            batch_size: windows of an image that go through the network together.
            workers: threads that read and prepare images while the network works; 0 reads in between.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")

        def segment(batch: Sequence[tuple[_Prepared, str | None]]) -> list[SegmentationMap]:
            return [self._segment(picture, batch_size, source) for picture, source in batch]

        # Pictures have sizes of their own: each goes alone, its windows together.
        return in_batches(images, self._read, segment, batch_size=1, workers=workers)

    def _read(self, image: ImageSource | NamedImage) -> _Prepared:
        picture = open_image(image)
        return _Prepared((picture.height, picture.width), views_of(picture, self.viewing, self._scales))

    @torch.inference_mode()
    def _segment(self, picture: _Prepared, batch_size: int, source: str | None) -> SegmentationMap:
        size = picture.size
        looks = looks_through(picture.views, flip=self._flip, device=self.device)
        try:
            if not self.keeps_probabilities:
                labels_HW = label_map(self.model, looks, size, batch_size=batch_size).numpy()
                return SegmentationMap(labels_HW, self.labels, self.palette, source=source)
            # Bands go where they belong as they come: a list of them would need all their memory twice.
            labels_HW, kept_CHW = np.empty(size, np.uint8), np.empty((len(self.labels), *size), np.float16)
            top = 0
            for band_CRW in probabilities(self.model, looks, size, batch_size=batch_size):
                rows = slice(top, top := top + band_CRW.shape[1])
                labels_HW[rows] = band_CRW.argmax(0).to(torch.uint8).cpu().numpy()
                kept_CHW[:, rows] = band_CRW.half().cpu().numpy()
        except ValueError as error:
            raise ValueError(f"{self._path} gives {error}; {_OTHERS}") from None
        return SegmentationMap(labels_HW, self.labels, self.palette, kept_CHW, source)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A picture's (height, width), and its pixels at each size at which it is looked at."""

    size: tuple[int, int]
    views: Sequence[tuple[Tensor, Viewing]]


def looks_at(
    image: Image.Image, viewing: Viewing, scales: Sequence[float], *, flip: bool, device: torch.device
) -> list[Look]:
    """A picture at each size, and mirrored; at that of ``viewing`` alone where there are no scales."""
    return looks_through(views_of(image, viewing, scales), flip=flip, device=device)


def views_of(image: Image.Image, viewing: Viewing, scales: Sequence[float]) -> list[tuple[Tensor, Viewing]]:
    """The first half of `looks_at`, which needs no device: the picture's pixels (3, h, w) of uint8 at each size."""
    sizes = [scaled(viewing, (image.height, image.width), scale) for scale in scales] or [viewing]
    return [(view(image, each), each) for each in sizes]


def looks_through(views: Sequence[tuple[Tensor, Viewing]], *, flip: bool, device: torch.device) -> list[Look]:
    """The second half: the looks on the device."""
    looks: list[Look] = []
    for pixels_CHW, each in views:
        there_CHW = pixels_CHW.to(device)
        looks += [Look(there_CHW, each, mirrored) for mirrored in ((False, True) if flip else (False,))]
    return looks


def check_scales(scales: Sequence[float]) -> None:
    """Raise ``ValueError`` for a size that makes no sense."""
    if not isinstance(scales, Sequence) or not all(0 < scale <= 16 for scale in scales):
        raise ValueError(f"scales must be a list of factors in (0, 16], got {scales}")


def _viewing(own: Viewing, own_size: bool, window: Sequence[int] | None, stride: Sequence[int] | None) -> Viewing:
    """The weights' own, with what the user asks for in its place."""
    if own_size:
        own = replace(own, frame=None, multiple=1, window=own.window or _WINDOW)
    if window is not None:
        own = replace(own, window=cast(Any, window), stride=None)
    return own if stride is None else replace(own, stride=cast(Any, stride))
