"""A detector's inputs, and what it says of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from internimage.structures.labels import IMAGENET_MEAN, IMAGENET_STD, LabelMap, finite

MergeRule = Literal["nms", "soft_nms", "soft_nms_linear", "box_voting", "box_fusion"]
_SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Framing:
    """How a picture becomes a detector's input: one definition for training, prediction and export.

    The picture is made as large as the frame allows, at its own ratio; values in [0, 1] are then normalised.

    Args:
        frame: largest length in pixels of the shorter and of the longer side.
        mean: per channel (RGB), for values in [0, 1].
        std: per channel, positive.
    """

    frame: tuple[int, int] = (800, 1333)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", finite(self.mean))
        object.__setattr__(self, "std", finite(self.std))
        given: Any = self.frame
        sides = tuple(cast(Iterable[Any], given)) if isinstance(given, Iterable) else ()
        if len(sides) != 2 or not all(type(side) is int for side in sides) or not 1 <= sides[0] <= sides[1]:
            raise ValueError(
                f"frame must be the shorter and the longer side in pixels, such as 800, 1333; got {given!r}"
            )
        object.__setattr__(self, "frame", sides)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std need 3 values each (RGB), std positive ones; got {self.mean}, {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"frame": list(self.frame), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Framing:
        """The inverse of `to_dict`; unknown keys raise ``ValueError``."""
        if unknown := sorted(set(values) - {"frame", "mean", "std"}):
            raise ValueError(f"unknown settings of a detector's input {unknown}; known are frame, mean, std")
        return cls(**values)


@dataclass(frozen=True)
class Merging:
    """How the objects that several views of a picture show become one list; boxes of different classes never meet.

    - ``nms``: the best box of an object stays, with its score.
    - ``soft_nms``: a box that overlaps a better one keeps ``exp(-IoU**2 / sigma)`` of its score.
    - ``soft_nms_linear``: from the threshold on it keeps ``1 - IoU`` of it.
    - ``box_voting``: as ``nms``; then the box becomes the mean of the boxes that overlap it, weighted by their scores.
    - ``box_fusion``: weighted boxes fusion. All boxes of an object become their mean, weighted by their scores; the
      score becomes their mean score, and less where fewer boxes than views show the object.

    Args:
        rule: one of the five.
        iou: boxes of a class that overlap by a larger IoU show one object, in (0, 1]; None takes the detector's own
            threshold. Not for ``soft_nms``, which has none.
        sigma: of ``soft_nms``, positive; a smaller one takes more of the score.
        votes: least IoU with the kept box of the boxes that vote on it in ``box_voting``, in (0, 1].

    Raises:
        ValueError: a value outside its range, or one that the rule does not use.

    >>> Merging("box_voting").votes, Merging("soft_nms", sigma=0.3).has_threshold
    (0.5, False)
    """

    rule: MergeRule = "nms"
    iou: float | None = None
    sigma: float = 0.5
    votes: float = 0.5

    def __post_init__(self) -> None:
        if self.rule not in get_args(MergeRule):
            raise ValueError(f"merge must be one of {', '.join(get_args(MergeRule))}, got {self.rule!r}")
        for name, value in (("iou", self.iou), ("votes", self.votes)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} of merge must lie in (0, 1], got {value}")
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma of merge must be positive, got {self.sigma}")
        used = {"iou": self.rule != "soft_nms", "sigma": self.rule == "soft_nms", "votes": self.rule == "box_voting"}
        for each in fields(self)[1:]:
            if getattr(self, each.name) != each.default and not used[each.name]:
                raise ValueError(f"{self.rule} has no {each.name}; leave it out")

    @property
    def has_threshold(self) -> bool:
        """Whether the rule asks from which IoU on boxes show one object."""
        return self.rule != "soft_nms"


@dataclass(frozen=True)
class View:
    """One way to look at a picture.

    Args:
        framing: how large, and normalised how.
        mirrored: from left to right.
    """

    framing: Framing
    mirrored: bool = False


@dataclass(frozen=True)
class Views:
    """The ways in which a detector looks at each picture, and how what they show is put together.

    Args:
        sides: shorter sides in pixels, such as 640, 800, 960; none is that of the training.
        flip: look at each size also from left to right.
        merge: a rule of `Merging`, or a `Merging` with its numbers.

    Raises:
        ValueError: a side below 32 pixels, a rule that does not exist, or one for a single view, which needs none.

    >>> views = Views((320, 640), flip=True)
    >>> [(view.framing.frame, view.mirrored) for view in views.of(Framing((800, 1333)))]
    [((320, 533), False), ((320, 533), True), ((640, 1066), False), ((640, 1066), True)]
    """

    sides: tuple[int, ...] = ()
    flip: bool = False
    merge: MergeRule | Merging = "nms"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sides", tuple(self.sides))
        if not all(side >= _SMALLEST_SIDE for side in self.sides):
            raise ValueError(f"sides must be {_SMALLEST_SIDE} pixels or more, got {list(self.sides)}")
        merging = self.merging
        if not self.are_several and merging != Merging():
            raise ValueError(f"merge {merging.rule} is for several views; add sides or flip, or leave merge out")

    @property
    def merging(self) -> Merging:
        """The rule with its numbers."""
        return self.merge if isinstance(self.merge, Merging) else Merging(self.merge)

    @property
    def are_several(self) -> bool:
        """Whether there is anything to put together."""
        return self.flip or len(self.sides) > 1

    def of(self, framing: Framing) -> list[View]:
        """The views of a detector that was trained on ``framing``; the longer side keeps its ratio to the shorter."""
        short, long = framing.frame
        framings = [replace(framing, frame=(side, round(side * long / short))) for side in self.sides] or [framing]
        return [View(each, mirrored) for each in framings for mirrored in ((False, True) if self.flip else (False,))]


@dataclass(frozen=True)
class Placement:
    """How a network's input came from its picture: resized as a whole, then padded at the right and at the bottom.

    Args:
        size: (height, width) of the input without padding, in pixels.
        original_size: (height, width) of the picture.
        scale_xy: input over original pixels, along x and along y; sides are rounded, so they differ a little.

    >>> Placement.fit((480, 640), (75, 100)).scale_xy
    (0.15625, 0.15625)
    """

    size: tuple[int, int]
    original_size: tuple[int, int]
    scale_xy: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def fit(cls, original_size: tuple[int, int], size: tuple[int, int]) -> Placement:
        """Of a picture resized to ``size``; both (height, width)."""
        (height, width), (new_height, new_width) = original_size, size
        return cls(size, original_size, (new_width / width, new_height / height))


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector says of one image, best first.

    Args:
        boxes: (R, 4) of float32: x1, y1, x2, y2 in pixels of the original image.
        scores: (R,) of float32, in [0, 1].
        labels: (R,) of int64, indices into ``classes``.
        classes: the class names.
        size: (height, width) of the original image.
        masks: (R, height, width) of bool, or None for a detector of boxes alone.
        source: where the image came from (a path), or None.

    >>> box, score, label = np.array([[1, 2, 30, 40]]), np.array([0.9]), np.array([1])
    >>> found = Detections(box, score, label, LabelMap(("cat", "dog")), (48, 64))
    >>> len(found), found.names
    (1, ('dog',))
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: LabelMap
    size: tuple[int, int]
    masks: NDArray[np.bool_] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32))
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64))
        if len(self.boxes) != count or self.labels.shape != (count,):
            raise ValueError(f"{len(self.boxes)} boxes, {count} scores and {len(self.labels)} labels; give one of each")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels must lie in [0, {len(self.classes)}), got {sorted(set(self.labels.tolist()))}")
        if self.masks is not None and self.masks.shape != (count, *self.size):
            raise ValueError(f"masks must have shape {(count, *self.size)}, got {self.masks.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each object."""
        return tuple(self.classes[int(label)] for label in self.labels)

    def above(self, score: float) -> Detections:
        """The objects of at least this score."""
        return self.take(np.flatnonzero(self.scores >= score))

    def take(self, rows: NDArray[np.integer[Any]]) -> Detections:
        """The objects in these rows, in this order."""
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks)
