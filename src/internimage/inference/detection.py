"""Finding the objects in an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from internimage.data import ImageReadError
from internimage.data.class_names import coco_labels
from internimage.data.detection.images import pad_batch, prepare
from internimage.data.inputs import NamedImage
from internimage.inference.loading import pick_device
from internimage.inference.reading import ImageSource, in_batches, open_image
from internimage.model import Checkpoint
from internimage.model.checkpoints.detector_files import load_detector
from internimage.structures import Detections, Framing, LabelMap, Placement

_PARTS = ("boxes", "scores", "labels")
_OTHERS = "its training diverged or the file is damaged: use other weights"


class Detector:
    """A trained detector, called with images.

    Args:
        source: a weight file, a run's folder, a training checkpoint, a released ``.pth``, or a hub id.
        device: for example ``"cpu"`` or ``"cuda"``; the fastest one here by default.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.
        score: least score of an object, in [0, 1); by default the file's own, usually 0.05.
        nms: a box that overlaps a better one of its class by a larger IoU goes; by default the file's own.
        limit: most objects of an image; by default the file's own, usually 100.
        sides: shorter sides in pixels at which each image is looked at, such as ``(640, 800, 960)``; by default the
            one of the training.
        flip: look at each image also from left to right.

    Attributes:
        model: the network, in evaluation mode.
        labels: class names.
        framing: how images become inputs.

    Objects found at several sizes, or mirrored, are put together and suppressed once more: the best box of each counts,
    with its score and its mask.

    Raises:
        ImportError: torchvision is missing.
        ValueError: no detector's weights, weights that are no numbers, a value outside its range, or ``nms`` for a
            detector that has none.
    """

    def __init__(
        self,
        source: str | Path | Checkpoint,
        *,
        device: str | None = None,
        ema: bool | None = None,
        score: float | None = None,
        nms: float | None = None,
        limit: int | None = None,
        sides: Sequence[int] = (),
        flip: bool = False,
    ) -> None:
        _check(score, nms, limit, sides)
        asked = {"score_threshold": score, "nms_threshold": nms, "detections": limit}
        self.device = pick_device(device)
        loaded = load_detector(source, ema=ema, limits={name: each for name, each in asked.items() if each is not None})
        self.model, self.framing, self._path = loaded.model.to(self.device), loaded.framing, loaded.path
        # No score of such weights is above any threshold: every image would seem to be empty.
        if not torch.stack([each.isfinite().all() for each in self.model.state_dict().values()]).all():
            raise ValueError(f"{self._path} holds weights that are not finite; {_OTHERS}")
        classes = loaded.model.config.num_classes
        self.labels = loaded.labels or coco_labels(classes) or LabelMap.numbered(classes)
        self.has_masks = loaded.model.config.masks
        mirrorings = (False, True) if flip else (False,)
        self._views = [(framing, mirrored) for framing in self._framings(sides) for mirrored in mirrorings]
        self._limit: int = loaded.model.config.detections
        self._nms = float(getattr(loaded.model.config, "nms_threshold", 0.5))

    def _framings(self, sides: Sequence[int]) -> list[Framing]:
        short, long = self.framing.frame
        return [replace(self.framing, frame=(side, round(side * long / short))) for side in sides] or [self.framing]

    @overload
    def __call__(self, images: ImageSource, *, batch_size: int = 1) -> Detections: ...
    @overload
    def __call__(self, images: Sequence[ImageSource], *, batch_size: int = 1) -> list[Detections]: ...
    def __call__(
        self, images: ImageSource | Sequence[ImageSource], *, batch_size: int = 1
    ) -> Detections | list[Detections]:
        """One `Detections` for one image, a list of them for a list.

        Args:
            images: a path, encoded bytes, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), or a list of them.
            batch_size: images that go through the network together, padded to the largest of them.

        Raises:
            ImageReadError: an image can't be read; `stream` goes on instead.
            ValueError: the network's scores are no numbers.
        """
        single = isinstance(images, str | Path | bytes | Image.Image | np.ndarray)
        results: list[Detections] = []
        for result in self.stream([images] if single else images, batch_size=batch_size):
            if isinstance(result, ImageReadError):
                raise result
            results.append(result)
        return results[0] if single else results

    def stream(
        self, images: Iterable[ImageSource | NamedImage], *, batch_size: int = 1, workers: int = 0
    ) -> Iterator[Detections | ImageReadError]:
        """A result per image in order; an image that can't be read gives its error instead of ending the run.

        Args:
            images: asked for as they are needed.
            batch_size: images that go through the network together, padded to the largest of them.
            workers: threads that read and prepare images while the network works; 0 reads in between.
        """
        return in_batches(images, self._read, self._detect, batch_size=batch_size, workers=workers)

    def _read(self, image: ImageSource | NamedImage) -> _Prepared:
        picture = open_image(image)
        looks = [
            prepare(ImageOps.mirror(picture) if mirrored else picture, framing) for framing, mirrored in self._views
        ]
        return _Prepared((picture.height, picture.width), looks)

    def _detect(self, batch: Sequence[tuple[_Prepared, str | None]]) -> list[Detections]:
        pictures = [picture for picture, _ in batch]
        looks = [self._look(pictures, view) for view in range(len(self._views))]
        return [
            replace(_together(each, self._nms, self._limit), source=source)
            for each, (_, source) in zip(zip(*looks, strict=True), batch, strict=True)
        ]

    @torch.inference_mode()
    def _look(self, pictures: Sequence[_Prepared], view: int) -> list[Detections]:
        """What one view of each picture shows, in the picture's own pixels."""
        _, mirrored = self._views[view]
        prepared = [picture.looks[view] for picture in pictures]
        batch_NCHW = pad_batch([tensor for tensor, _ in prepared]).to(self.device)
        results: list[Detections] = []
        for picture, found in zip(pictures, self.model(batch_NCHW, [place for _, place in prepared]), strict=True):
            boxes, scores, labels = (each.float().cpu().numpy() for each in (found.boxes, found.scores, found.labels))
            if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
                raise ValueError(f"{self._path} gives boxes or scores that are not finite; {_OTHERS}")
            masks = None if found.masks is None else found.masks.cpu().numpy()
            if mirrored:
                width = picture.size[1]
                boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)
                masks = None if masks is None else masks[..., ::-1]
            results.append(Detections(boxes, scores, labels.astype(np.int64), self.labels, picture.size, masks))
        return results


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A picture's (height, width), and its input and place for each view of it."""

    size: tuple[int, int]
    looks: Sequence[tuple[Tensor, Placement]]


def _together(views: Sequence[Detections], nms: float, limit: int) -> Detections:
    """Objects of several views of one image, the best box of each."""
    if len(views) == 1:
        return views[0]
    from torchvision.ops import batched_nms

    first = views[0]
    boxes, scores, labels = (np.concatenate([getattr(each, name) for each in views]) for name in _PARTS)
    masks = None if first.masks is None else np.concatenate([each.masks for each in views if each.masks is not None])
    every = replace(first, boxes=boxes, scores=scores, labels=labels, masks=masks)
    box, score, label = (torch.from_numpy(each) for each in (every.boxes, every.scores, every.labels))
    kept = batched_nms(box, score, label, nms)
    return every.take(kept[:limit].numpy())


def _check(score: float | None, nms: float | None, limit: int | None, sides: Sequence[int]) -> None:
    if score is not None and not 0 <= score < 1:
        raise ValueError(f"score must lie in [0, 1), got {score}")
    if nms is not None and not 0 < nms <= 1:
        raise ValueError(f"nms must lie in (0, 1], got {nms}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if not all(side >= 32 for side in sides):
        raise ValueError(f"sides must be 32 pixels or more, got {list(sides)}")


def detections_json(found: Detections) -> list[dict[str, Any]]:
    """The objects in plain values, ready for JSON; masks as COCO's compressed run lengths.

    >>> empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), LabelMap(("cat",)), (48, 64))
    >>> detections_json(empty)
    []
    """
    from internimage.data.detection.rle import encode_masks

    masks: list[Mapping[str, Any] | None] = [None] * len(found)
    if found.masks is not None and len(found):
        masks = list(encode_masks(found.masks))
    return [
        {"label": name, "score": round(float(score), 6), "box": [round(float(each), 2) for each in box]}
        | ({} if mask is None else {"mask": mask})
        for name, score, box, mask in zip(found.names, found.scores, found.boxes, masks, strict=True)
    ]
