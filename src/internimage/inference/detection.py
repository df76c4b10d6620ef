"""Finding the objects in an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from PIL import Image

from internimage.data import ImageReadError
from internimage.data.class_names import coco_labels
from internimage.data.detection.images import Look, Seen, look_at
from internimage.data.inputs import NamedImage
from internimage.inference.loading import pick_device
from internimage.inference.reading import ImageSource, in_batches, open_image
from internimage.model import Checkpoint
from internimage.model.checkpoints.detector_files import load_detector
from internimage.structures import Detections, LabelMap, MergeRule, Merging, Views

if TYPE_CHECKING:
    from internimage.model.detection import Detected

_OTHERS = "its training diverged or the file is damaged: use other weights"


class Detector:
    """A trained detector, called with images.

    Args:
        source: a weight file, a run's folder, a training checkpoint, a released ``.pth``, or a hub id.
        device: for example ``"cpu"`` or ``"cuda"``; the fastest one here by default.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.
        score: least score of an object, in [0, 1); by default the file's own, usually 0.05.
        nms: a box that overlaps a better one of its class by a larger IoU goes; by default the file's own. A detector
            of the DETR family has none: there it is for what several views show, by default 0.5.
        limit: most objects of an image; by default the file's own, usually 100.
        sides: shorter sides in pixels at which each image is looked at, such as ``(640, 800, 960)``; by default the
            one of the training.
        flip: look at each image also from left to right.
        merge: how objects found at several sizes, or mirrored, are put together: ``nms``, ``soft_nms``,
            ``soft_nms_linear``, ``box_voting`` or ``box_fusion``, or a `Merging` with its numbers.

    Attributes:
        model: the network, in evaluation mode.
        labels: class names.
        framing: how images become inputs.

    An object's mask is that of its best box, whatever ``merge`` makes of the box. ``score`` and ``limit`` hold for each
    view and for what was put together.

    Raises:
        ImportError: torchvision is missing.
        ValueError: no detector's weights, weights that are no numbers, a value outside its range, or a setting that
            nothing would use: ``nms`` for a detector and a merging that have no threshold, ``merge`` for one view.
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
        merge: MergeRule | Merging = "nms",
    ) -> None:
        _check(score, nms, limit)
        views = Views(tuple(sides), flip, merge)
        self._merging = views.merging
        asked = {"score_threshold": score, "detections": limit}
        suppressed = {"nms_threshold": nms}
        if views.are_several and self._merging.has_threshold and self._merging.iou is None and nms is not None:
            self._merging = replace(self._merging, iou=nms)
        else:
            asked, suppressed = asked | suppressed, {}
        self.device = pick_device(device)
        loaded = load_detector(source, ema=ema, limits=_given(asked), limits_if_known=_given(suppressed))
        self.model, self.framing, self._path = loaded.model.to(self.device), loaded.framing, loaded.path
        # No score of such weights is above any threshold: every image would seem to be empty.
        if not torch.stack([each.isfinite().all() for each in self.model.state_dict().values()]).all():
            raise ValueError(f"{self._path} holds weights that are not finite; {_OTHERS}")
        classes = loaded.model.config.num_classes
        self.labels = loaded.labels or coco_labels(classes) or LabelMap.numbered(classes)
        self.has_masks = loaded.model.config.masks
        self._views = views.of(self.framing)

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

    def _read(self, image: ImageSource | NamedImage) -> list[Seen]:
        picture = open_image(image)
        return [look_at(picture, view) for view in self._views]

    @torch.inference_mode()
    def _detect(self, batch: Sequence[tuple[list[Seen], str | None]]) -> list[Detections]:
        from internimage.inference.views import NotFiniteError, detect

        looks = (Look.of(seen) for seen in zip(*(picture for picture, _ in batch), strict=True))
        try:
            found = detect(self.model, looks, self._merging)
        except NotFiniteError as error:
            raise ValueError(f"{self._path} gives {error}; {_OTHERS}") from None
        return [self._described(each, *picture) for each, picture in zip(found, batch, strict=True)]

    def _described(self, found: Detected, looks: Sequence[Seen], source: str | None) -> Detections:
        boxes, scores, labels = (each.numpy() for each in (found.boxes, found.scores, found.labels))
        masks = None if found.masks is None else found.masks.numpy()
        return Detections(boxes, scores, labels, self.labels, looks[0].placement.original_size, masks, source)


def _check(score: float | None, nms: float | None, limit: int | None) -> None:
    if score is not None and not 0 <= score < 1:
        raise ValueError(f"score must lie in [0, 1), got {score}")
    if nms is not None and not 0 < nms <= 1:
        raise ValueError(f"nms must lie in (0, 1], got {nms}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


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
