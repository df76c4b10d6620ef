"""The network behind the page: a classifier, a detector or a segmenter, and what it says of a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from internimage.inference import Classifier
from internimage.model import Checkpoint, read_checkpoint
from internimage.model.checkpoints.detector_files import holds_detector
from internimage.model.checkpoints.hub import locate
from internimage.model.checkpoints.segmenter_files import holds_segmenter
from internimage.model.weights import DEFAULT_WEIGHTS, SHIPPED
from internimage.visualization.detection import draw_detections
from internimage.visualization.segmentation import draw_segmentation

# Below it most detections are mistakes.
_SCORE = 0.3
_SHOWN_CLASSES = 5
_NAMED = 6
# Sizes at which a small classifier is also shown whole pictures.
_WHOLE = (128, 224)


@dataclass(frozen=True)
class Seen:
    """What a network sees in a picture.

    Args:
        words: in one line.
        shares: the most probable classes with their probabilities; None where there are none.
        picture: what was found, drawn on the picture; None where nothing has a place.
    """

    words: str
    shares: Mapping[str, float] | None = None
    picture: Image.Image | None = None


class Network(Protocol):
    """Weights that are ready to look at pictures."""

    @property
    def about(self) -> str:
        """What these weights know, in a sentence or two, for whoever opens the page."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """How it may be shown a picture when it is asked where it looks: words, and pixels of the shorter side.

        0 is what it sees in its task; a network with one way has none to choose from.
        """
        ...

    def look(self, image: Image.Image) -> Seen:
        """What is in an RGB picture; raises ``ValueError`` for scores that are no numbers."""
        ...


def load_network(weights: str, device: str | None) -> Network:
    """A network by its weights, as ``internimage predict`` finds it.

    Args:
        weights: a file, a run's folder, a weight name or a hub id.
        device: such as ``cpu``; the fastest one here by default.

    Raises:
        ValueError: no weights, or a device that is not here.
        ImportError: the extra of a detector or a segmenter is missing.
    """
    found = read_checkpoint(locate(weights))
    if holds_detector(found):
        return _Finds(found, device)
    if holds_segmenter(found):
        return _Maps(found, device)
    return _Names(weights, device)


class _Names:
    """Names what a picture shows."""

    def __init__(self, weights: str, device: str | None) -> None:
        self._classifier = Classifier(weights, device=device)
        names, size = list(self._classifier.labels), self._classifier.preprocess.size
        self.sizes = {f"its middle, {size} pixels": 0}
        self.sizes |= {f"whole, {each} pixels": each for each in (max(_WHOLE[0], size), max(_WHOLE[1], 2 * size))}
        self.about = f"These weights name {_listed(names)} and see a picture at {size} x {size} pixels."
        if weights == DEFAULT_WEIGHTS:
            row = SHIPPED[DEFAULT_WEIGHTS]
            self.about += (
                f" They come with the package, small enough for any machine: right on {row.top1:g}% of the test "
                f"pictures of {row.data}, and bound to call everything else by one of the same ten names."
            )

    def look(self, image: Image.Image) -> Seen:
        seen = self._classifier(image)
        return Seen(f"{seen.label}, {100 * seen.score:.1f}%", dict(seen.top(_SHOWN_CLASSES)))


class _Finds:
    """Finds objects in a picture."""

    def __init__(self, found: Checkpoint, device: str | None) -> None:
        # A classifier's users need none of what detection needs.
        from internimage.inference.detection import Detector

        self.sizes: dict[str, int] = {}
        self._detector = Detector(found, device=device, score=_SCORE)
        what = "their boxes and masks" if self._detector.has_masks else "their boxes"
        self.about = f"These weights find {_listed(list(self._detector.labels))}, with {what}."

    def look(self, image: Image.Image) -> Seen:
        found = self._detector(image)
        counts = Counter(found.names).most_common()
        words = ", ".join(f"{count} {name}" for name, count in counts[:_NAMED]) or "nothing that these weights know"
        return Seen(words, picture=draw_detections(image, found))


class _Maps:
    """Names every pixel of a picture."""

    def __init__(self, found: Checkpoint, device: str | None) -> None:
        from internimage.inference.segmentation import Segmenter

        self.sizes: dict[str, int] = {}
        self._segmenter = Segmenter(found, device=device)
        self.about = f"These weights give every pixel one of {_listed(list(self._segmenter.labels))}."

    def look(self, image: Image.Image) -> Seen:
        found = self._segmenter(image)
        shares = list(found.shares().items())[:_NAMED]
        words = ", ".join(f"{name} {100 * share:.0f}%" for name, share in shares)
        return Seen(words, picture=draw_segmentation(image, found))


def _listed(names: list[str]) -> str:
    """How many classes, and which if they are few.

    >>> _listed(["cat", "dog"]), _listed([str(number) for number in range(80)])
    ('2 classes (cat, dog)', '80 classes')
    """
    few = f" ({', '.join(names)})" if len(names) <= 2 * _SHOWN_CLASSES else ""
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}{few}"
