"""Masks in annotation files: polygons and run lengths, checked, drawn and written.

COCO's run lengths count pixels down the columns, background first. Compressed, each count is a difference to the count
two before it, in characters that carry five bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from internimage.data.detection.coco import Instance, Picture

Box = tuple[float, float, float, float]


def instance_masks(picture: Picture, instances: Sequence[Instance]) -> NDArray[np.bool_]:
    """The masks of some of a picture's objects, (R, H, W), in the order of ``instances``.

    Polygons are drawn as COCO's tools draw them; those of one object are joined.

    Raises:
        ValueError: an object has no segmentation.
        ImportError: faster-coco-eval is not installed.
    """
    codes = _codes(picture, instances)
    if not codes:
        return np.zeros((0, *picture.size), bool)
    return np.ascontiguousarray(_coding().decode(codes).transpose(2, 0, 1)).view(bool)


def joined_mask(picture: Picture, instances: Sequence[Instance]) -> NDArray[np.bool_]:
    """Where any of some of a picture's objects is, (H, W): faster than their masks, and raises as `instance_masks`."""
    codes = _codes(picture, instances)
    if not codes:
        return np.zeros(picture.size, bool)
    coding = _coding()
    return np.ascontiguousarray(coding.decode(coding.merge(codes))).view(bool)


def encode_masks(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Masks (R, H, W) as compressed run lengths ``{"size": [height, width], "counts": str}``, ready for JSON.

    >>> encode_masks(np.eye(3, dtype=bool)[None])
    [{'size': [3, 3], 'counts': '013000'}]
    """
    if masks.ndim != 3:
        raise ValueError(f"masks must have shape (R, H, W), got {masks.shape}")
    if not len(masks):
        return []
    codes = _coding().encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
    return [{"size": list(masks.shape[1:]), "counts": code["counts"].decode("ascii")} for code in codes]


def decode_masks(codes: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """The inverse of `encode_masks`, for one mask or more of one size.

    >>> decode_masks(encode_masks(np.eye(3, dtype=bool)[None]))[0].astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    return np.ascontiguousarray(_coding().decode([dict(code) for code in codes]).transpose(2, 0, 1)).view(bool)


def check_rle(segmentation: Mapping[str, Any], size: tuple[int, int]) -> str | None:
    """Why a run-length encoded mask is broken, or None; ``size`` is the picture's (height, width).

    >>> check_rle({"size": [2, 3], "counts": [1, 2, 2]}, (2, 3))
    'its counts sum to 5, not to 2 x 3 = 6 pixels'
    """
    height, width = size
    given: Any = segmentation.get("size")
    if given != [height, width] or set(map(type, given)) != {int}:
        return f"its size is {given!r:.60}, but the picture's is [{height}, {width}]"
    try:
        counts = run_lengths(segmentation)
    except ValueError as error:
        return str(error)
    if counts and min(counts) < 0:
        return f"a count is negative ({min(counts)})"
    if sum(counts) != height * width:
        return f"its counts sum to {sum(counts)}, not to {height} x {width} = {height * width} pixels"
    return None


def run_lengths(segmentation: Mapping[str, Any]) -> list[int]:
    """The counts of a run-length encoded mask, compressed or not; raises ``ValueError`` if there are none to read."""
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return _decompress(counts)
    if not isinstance(counts, list):
        raise ValueError(f"its counts must be a list of numbers or a text, got {counts!r:.60}")
    if not set(map(type, cast(list[Any], counts))) <= {int}:
        raise ValueError("its counts must be whole numbers")
    return cast(list[int], counts)


def _decompress(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"its counts hold the character {letter!r}, which compressed counts never do")
        value |= (code & 31) << shift
        shift += 5
        # Bit 5 says that more follows; without it, bit 4 is the sign.
        if not code & 32:
            value -= (code & 16) << shift - 4
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
        elif shift > 40:
            raise ValueError("its counts hold a number of more than 40 bits")
    if shift:
        raise ValueError("its counts end in the middle of a number")
    return counts


def segmentation_box(segmentation: Any) -> Box:
    """The box x1, y1, x2, y2 around polygons, or around a mask of a checked encoding; all 0 for an empty mask.

    >>> segmentation_box({"size": [2, 3], "counts": [1, 2, 3]})
    (0, 0, 2, 2)
    """
    if isinstance(segmentation, list):
        xs = [x for polygon in segmentation for x in polygon[0::2]]
        ys = [y for polygon in segmentation for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    height = segmentation["size"][0]
    ends = list(accumulate(run_lengths(segmentation)))
    runs = [(start, end - 1) for start, end in zip(ends[0::2], ends[1::2], strict=False) if end > start]
    if not runs:
        return 0, 0, 0, 0
    # A run from one column into the next touches the picture's lower and upper edge.
    wraps = any(first // height != last // height for first, last in runs)
    y1 = 0 if wraps else min(first % height for first, _ in runs)
    y2 = height if wraps else max(last % height for _, last in runs) + 1
    return runs[0][0] // height, y1, runs[-1][1] // height + 1, y2


def _codes(picture: Picture, instances: Sequence[Instance]) -> list[Any]:
    """Run lengths of each object, as faster-coco-eval takes them."""
    coding = _coding()
    height, width = picture.size
    codes: list[Any] = []
    for instance in instances:
        segmentation = instance.segmentation
        if segmentation is None:
            where = f"annotation {instance.id} (image {picture.id}, {picture.path.name})"
            raise ValueError(f"{where} has no segmentation; a detector of masks needs one for every object")
        if isinstance(segmentation, list):
            codes.append(coding.merge(coding.frPyObjects(segmentation, height, width)))
        elif isinstance(segmentation["counts"], str):
            codes.append(segmentation)
        else:
            codes.append(coding.frPyObjects(segmentation, height, width))
    return codes


def _coding() -> Any:
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise ImportError(
            f"masks need faster-coco-eval: pip install 'internimage-torch[detection]' ({error})", name=error.name
        ) from error
    return mask
