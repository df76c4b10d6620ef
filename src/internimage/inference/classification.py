"""Naming what is in an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from internimage.data import ImageReadError, to_tensor
from internimage.data.inputs import NamedImage
from internimage.inference.loading import load_classifier, pick_device
from internimage.inference.reading import ImageSource, in_batches, open_image
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import Classification, LabelMap, Preprocess


class Classifier:
    """A trained network, called with images.

    Args:
        source: a weight file, training checkpoint, weight name or hub id; by default the weights that come with the
            package: the ten classes of CIFAR-10, seen at 32 x 32 pixels.
        device: for example ``"cpu"`` or ``"cuda"``; the fastest one here by default.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.

    Attributes:
        model: the network, in evaluation mode.
        labels: class names.
        preprocess: how images become inputs.

    >>> import internimage, tempfile, pathlib
    >>> model = internimage.create_model("internimage_femto", num_classes=2)
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "pets.safetensors"
    >>> _ = internimage.save_checkpoint(model, file, labels=LabelMap(("cat", "dog")), preprocess=Preprocess(64))
    >>> Classifier(file, device="cpu")(Image.new("RGB", (80, 60))).label in ("cat", "dog")
    True
    """

    def __init__(
        self, source: str | Path = DEFAULT_WEIGHTS, *, device: str | None = None, ema: bool | None = None
    ) -> None:
        self.device, self._source = pick_device(device), source
        model, card = load_classifier(source, ema=ema)
        self.model = model.to(self.device)
        self.labels = cast(LabelMap, card.labels)
        self.preprocess = cast(Preprocess, card.preprocess)

    @overload
    def __call__(self, images: ImageSource, *, batch_size: int = 32) -> Classification: ...
    @overload
    def __call__(self, images: Sequence[ImageSource], *, batch_size: int = 32) -> list[Classification]: ...
    def __call__(
        self, images: ImageSource | Sequence[ImageSource], *, batch_size: int = 32
    ) -> Classification | list[Classification]:
        """One `Classification` for one image, a list of them for a list.

        Args:
            images: a path, encoded bytes, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), or a list of them.
            batch_size: images that go through the network together.

        Raises:
            ImageReadError: an image can't be read; `stream` goes on instead.
            ValueError: the network's scores are no numbers.
        """
        single = isinstance(images, str | Path | bytes | Image.Image | np.ndarray)
        results: list[Classification] = []
        for result in self.stream([images] if single else images, batch_size=batch_size):
            if isinstance(result, ImageReadError):
                raise result
            results.append(result)
        return results[0] if single else results

    def stream(
        self, images: Iterable[ImageSource | NamedImage], *, batch_size: int = 32, workers: int = 0
    ) -> Iterator[Classification | ImageReadError]:
        """A result per image in order; an image that can't be read gives its error instead of ending the run.

        Args:
            images: asked for as they are needed.
            batch_size: images that go through the network together.
            workers: threads that read and prepare images while the network works; 0 reads in between.
        """
        return in_batches(images, self._read, self._classify, batch_size=batch_size, workers=workers)

    def _read(self, image: ImageSource | NamedImage) -> Tensor:
        return to_tensor(open_image(image, in_chans=self.preprocess.in_chans), self.preprocess)

    @torch.inference_mode()
    def _classify(self, batch: Sequence[tuple[Tensor, str | None]]) -> list[Classification]:
        scores_NC = self.model(torch.stack([image for image, _ in batch]).to(self.device))
        if not scores_NC.isfinite().all():
            raise ValueError(
                f"{self._source} gives scores that are not finite; its training diverged or the file is damaged: "
                "use other weights"
            )
        probabilities_NC = scores_NC.float().softmax(-1).cpu().tolist()
        return [
            Classification(tuple(each), self.labels, source)
            for each, (_, source) in zip(probabilities_NC, batch, strict=True)
        ]
