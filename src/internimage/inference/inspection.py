"""Looking into a network: where it looks, what it rests on, for weights of any task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from internimage.data.detection.images import normalize, prepare
from internimage.data.preprocess import RESAMPLING, crop_box, normalize_image, to_tensor
from internimage.data.segmentation.dataset import view
from internimage.inference.loading import load_classifier, pick_device
from internimage.inference.reading import ImageSource, open_image
from internimage.inference.receptive_field import effective_receptive_field
from internimage.model import read_checkpoint
from internimage.model.checkpoints.detector_files import holds_detector, load_detector
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.segmenter_files import holds_segmenter, load_segmenter
from internimage.model.layers import to_nchw, to_nhwc
from internimage.model.sampling import find_backbone, trace_sampling
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import (
    ClassActivation,
    Framing,
    LabelMap,
    Preprocess,
    ReceptiveField,
    SamplingTrace,
    Viewing,
)

STAGES = 4

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """An image as a network sees it.

    Args:
        picture: what it sees, RGB, with the pixels of the original.
        tensor: the network's input, (1, C, H, W), normalised.
        box: x1, y1, x2, y2 of ``picture`` in the original, in pixels.
    """

    picture: Image.Image
    tensor: Tensor
    box: Box

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return int(self.tensor.shape[2]), int(self.tensor.shape[3])

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """A place in pixels of the original, in pixels of the network's input.

        Raises:
            ValueError: the network does not see that place.
        """
        left, top, right, bottom = self.box
        if not (left <= x <= right and top <= y <= bottom):
            raise ValueError(
                f"the network does not see pixel ({x:g}, {y:g}): it sees x from {left:.0f} to {right:.0f} and y from "
                f"{top:.0f} to {bottom:.0f} of this picture; a size shows it the whole picture"
            )
        height, width = self.size
        across, down = (x - left) / (right - left) * width - 0.5, (y - top) / (bottom - top) * height - 0.5
        return min(max(across, 0.0), width - 1.0), min(max(down, 0.0), height - 1.0)


class Inspector:
    """A trained network, asked what it does with images.

    Args:
        source: weights of a classifier, detector or segmenter as `Classifier`, `Detector` and `Segmenter` take them; by
            default those that come with the package.
        size: show the network whole pictures, this many pixels at their shorter side. None shows a classifier what it
            sees when it names a picture, the middle square; a detector or segmenter sees whole pictures, at the size
            of its training by default.
        device: for example ``"cpu"`` or ``"cuda"``; the fastest one here by default.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.

    Attributes:
        model: the network, in evaluation mode.
        labels: class names, or None where the file has none.
        task: ``"classification"``, ``"detection"`` or ``"segmentation"``.

    Raises:
        ValueError: weights that can't be read, or a size below 1.

    >>> from internimage.data import sample_photo
    >>> trace = Inspector(device="cpu").sampling(sample_photo())
    >>> trace.size, len(trace.blocks), trace.points((16, 16), stage=3).positions_xy.shape
    ((32, 32), 6, (72, 2))
    """

    def __init__(
        self,
        source: str | Path = DEFAULT_WEIGHTS,
        *,
        size: int | None = None,
        device: str | None = None,
        ema: bool | None = None,
    ) -> None:
        self.device, self._size = pick_device(device), _checked(size)
        found = read_checkpoint(locate(source), ema=ema)
        self.labels: LabelMap | None
        self._seen_as: Preprocess | Framing | Viewing
        network: nn.Module
        if holds_detector(found):
            detector = load_detector(found)
            self.task, network = "detection", detector.model
            self.labels, self._seen_as = detector.labels, detector.framing
        elif holds_segmenter(found):
            segmenter = load_segmenter(found)
            self.task, network = "segmentation", segmenter.model
            self.labels, self._seen_as = segmenter.labels, segmenter.viewing
        else:
            network, card = load_classifier(source, ema=ema)
            self.task, self.labels, self._seen_as = "classification", card.labels, cast(Preprocess, card.preprocess)
        self.model = network.to(self.device).eval()
        self._backbone = find_backbone(self.model)

    @property
    def num_blocks(self) -> tuple[int, ...]:
        """Blocks of each of the four stages."""
        return self._backbone.config.depths

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input between neighbouring cells of each stage's map."""
        first, second = self._backbone.config.stem_strides
        return tuple(first * second * 2**stage for stage in range(STAGES))

    def view(self, image: ImageSource, *, size: int | None = None) -> View:
        """An image as the network sees it.

        Args:
            image: a path, encoded bytes, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4).
            size: as that of the class, for this image; None takes that one.

        Raises:
            ImageReadError: it can't be read.
            ValueError: a size below 1.
        """
        size = self._size if size is None else _checked(size)
        if isinstance(self._seen_as, Preprocess):
            picture = open_image(image, in_chans=self._seen_as.in_chans)
            box, image_CHW = _as_classified(picture, self._seen_as, size)
        else:
            picture = open_image(image)
            box, image_CHW = _whole(picture), _as_a_whole(picture, self._seen_as, size)
        shown = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
        seen = picture.convert("RGB").resize(shown, Image.Resampling.BILINEAR, box=box)
        return View(seen, image_CHW[None].to(self.device), box)

    def sampling(self, image: ImageSource | View) -> SamplingTrace:
        """Where every block looks; places are in pixels of the network's input, see `View.to_input`."""
        return trace_sampling(self.model, self._view(image).tensor)

    @torch.no_grad()
    def stage_features(self, image: ImageSource | View) -> tuple[NDArray[np.float32], ...]:
        """The maps of the four stages, (H, W, C) each."""
        maps_NHWC = self._backbone.forward_stages(self._view(image).tensor)
        return tuple(map_NHWC[0].float().cpu().numpy() for map_NHWC in maps_NHWC)

    def class_activation(
        self, image: ImageSource | View, label: str | None = None, *, stage: int = STAGES
    ) -> ClassActivation:
        """Which regions of a stage's map speak for a class: Grad-CAM.

        Source: Selvaraju et al., arXiv:1610.02391; by captum.

        Args:
            image: as for `view`.
            label: a class name; None takes the most probable class.
            stage: from 1 to 4; the last stage's map is the coarsest and nearest to the answer.

        Raises:
            ImportError: captum is missing.
            ValueError: weights of no classifier, an unknown class or stage.
        """
        if self.task != "classification":
            raise ValueError(f"class activations are of classifiers; these weights are for {self.task}")
        if not 1 <= stage <= STAGES:
            raise ValueError(f"stage must be from 1 to {STAGES}, got {stage}")
        labels = cast(LabelMap, self.labels)
        view = self._view(image)
        with torch.no_grad():
            probabilities_C = self.model(view.tensor)[0].float().softmax(-1)
        index = int(probabilities_C.argmax()) if label is None else labels.index(label)
        values = _grad_cam(self.model, self._backbone.stages[stage - 1], view.tensor, index)
        score, stride = float(probabilities_C[index]), self.strides[stage - 1]
        return ClassActivation(values, labels[index], score, stride, view.size)

    def receptive_field(self, images: Iterable[ImageSource | View], *, stage: int = STAGES) -> ReceptiveField:
        """What of the input changes the middle of a stage's map, averaged over images of one size; see
        `effective_receptive_field`.
        """
        if not 1 <= stage <= STAGES:
            raise ValueError(f"stage must be from 1 to {STAGES}, got {stage}")

        def features(image_NCHW: Tensor) -> Tensor:
            return to_nchw(self._backbone.forward_stages(image_NCHW, stage)[-1])

        return effective_receptive_field(features, (self._view(image).tensor for image in images))

    def _view(self, image: ImageSource | View) -> View:
        return image if isinstance(image, View) else self.view(image)


def _checked(size: int | None) -> int | None:
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    return size


def _as_classified(picture: Image.Image, preprocess: Preprocess, size: int | None) -> tuple[Box, Tensor]:
    """The part that is seen, in pixels of the picture, and the network's input (C, H, W)."""
    if size is None:
        return crop_box(picture.size, preprocess), to_tensor(picture, preprocess)
    scale = size / min(picture.size)
    fitted = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    resized = picture.resize(fitted, RESAMPLING[preprocess.interpolation])
    return _whole(picture), normalize_image(resized, preprocess)


def _whole(picture: Image.Image) -> Box:
    return 0.0, 0.0, float(picture.width), float(picture.height)


def _as_a_whole(picture: Image.Image, seen_as: Framing | Viewing, size: int | None) -> Tensor:
    """A detector's or segmenter's input, (3, H, W)."""
    # Windows over a large picture each have a trace of their own: here it is seen at once, in the usual frame.
    frame = seen_as.frame or Framing().frame
    if size is not None:
        frame = size, round(size * frame[1] / frame[0])
    if isinstance(seen_as, Framing):
        return prepare(picture, replace(seen_as, frame=frame))[0]
    framing = Framing(frame, seen_as.mean, seen_as.std)
    return normalize(view(picture, replace(seen_as, frame=frame, window=None, stride=None)), framing)


def _grad_cam(model: nn.Module, stage: nn.Module, image_NCHW: Tensor, index: int) -> NDArray[np.float32]:
    """(h, w) of the stage's map, from 0 to 1."""
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise ImportError("class activations need captum: pip install 'internimage-torch[visualize]'") from error
    # Captum wants the map's channels first; the network holds them last.
    seen = nn.Identity()
    hook = stage.register_forward_hook(lambda _module, _inputs, map_NHWC: to_nhwc(seen(to_nchw(map_NHWC))))
    try:
        with torch.enable_grad():
            found: Any = LayerGradCam(model, seen).attribute(image_NCHW, target=index, relu_attributions=True)
    finally:
        hook.remove()
    values = found.detach()[0, 0].float().cpu().numpy()
    return values / max(float(values.max()), np.finfo(np.float32).tiny)
