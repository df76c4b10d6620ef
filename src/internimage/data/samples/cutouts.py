"""The sample images without their background: which pixels belong to the garment, shoe or bag.

Shape legend: N items, H W pixels. Masks are worked on with the 28 pixels of a row as bits of one number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from internimage.data.samples.fashion_mnist import SAMPLE_LABELS, SampleSplit, load_sample_arrays

# Below this the images hold what JPEG left around the items.
_DARKEST = 20
# Below handles, between straps and legs there is nothing; in other items a hole is a patch as white as the background.
_WITH_HOLES = tuple(SAMPLE_LABELS.index(name) for name in ("Trouser", "Sandal", "Bag"))
_SIDE = 28
_BITS = 1 << np.arange(_SIDE, dtype=np.uint32)
_FULL_ROW = np.uint32((1 << _SIDE) - 1)

_Rows = NDArray[np.uint32]


class Cutouts(NamedTuple):
    """Items cut out of their images.

    Args:
        images: (N, 28, 28) of uint8, as in the sample images, bright where the item is dark; at its border without the
            background's share.
        opacity: (N, 28, 28) of uint8: how much of a pixel is the item's, 255 for all.
        labels: (N,) of int64, the class.
    """

    images: NDArray[np.uint8]
    opacity: NDArray[np.uint8]
    labels: NDArray[np.int64]


@lru_cache(maxsize=2)
def cut_out(split: SampleSplit) -> Cutouts:
    """All items of one split of the sample images, in their order; the arrays are shared, so leave them as they are.

    >>> items = cut_out("test")
    >>> items.opacity.shape, items.opacity.max((1, 2)).min()
    ((1000, 28, 28), np.uint8(255))
    """
    images, labels = load_sample_arrays(split)
    item = _pack(images > _DARKEST)
    whole = _grow(_shrink(item), item)
    # Sandals may be nothing but thin straps.
    is_thin = _count(whole) < 0.8 * _count(item)
    item = np.where(is_thin[:, None], item, whole)
    around = _grow(_border(item), ~item & _FULL_ROW)
    holes = ~(item | around) & _FULL_ROW
    real = np.where(np.isin(labels, _WITH_HOLES)[:, None], _grow(_shrink(holes), holes), 0)
    return Cutouts(*_soften(images, item | holes & ~real), labels)


def _soften(images: NDArray[np.uint8], item: _Rows) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours and opacity: a pixel at the border mixes the item with black, and its neighbours show the item alone."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    offsets = [(slice(row, row + _SIDE), slice(column, column + _SIDE)) for row in range(3) for column in range(3)]
    brightest = np.maximum.reduce([padded[:, rows, columns] for rows, columns in offsets])
    around = ~item & _FULL_ROW
    is_rim = _unpack(_widen(item) & _widen(around))
    share = (images.astype(np.uint16) * 255 // np.maximum(brightest, 1)).astype(np.uint8)
    inside = _unpack(item) * np.uint8(255)
    return np.where(is_rim, brightest, images), np.where(is_rim, share, inside)


def _pack(masks_NHW: NDArray[np.bool_]) -> _Rows:
    return np.where(masks_NHW, _BITS, np.uint32(0)).sum(2, dtype=np.uint32)


def _unpack(rows_NH: _Rows) -> NDArray[np.bool_]:
    return rows_NH[..., None] & _BITS != 0


def _count(rows_NH: _Rows) -> NDArray[np.int64]:
    return _unpack(rows_NH).sum((1, 2))


def _border(rows_NH: _Rows) -> _Rows:
    """The pixels at the image's border that are not in the mask."""
    border_H = np.full(_SIDE, _BITS[0] | _BITS[-1], np.uint32)
    border_H[[0, -1]] = _FULL_ROW
    return border_H & ~rows_NH


def _shrink(rows_NH: _Rows) -> _Rows:
    """The pixels that are one corner of four in the mask."""
    pairs_NH = rows_NH & rows_NH >> 1
    inner_NH = np.zeros_like(rows_NH)
    inner_NH[:, :-1] = pairs_NH[:, :-1] & pairs_NH[:, 1:]
    return inner_NH


def _grow(seeds_NH: _Rows, within_NH: _Rows) -> _Rows:
    """The parts of ``within`` that hold a seed; pixels are neighbours that share a side."""
    before_NH, grown_NH = np.zeros_like(seeds_NH), seeds_NH
    while not np.array_equal(before_NH, grown_NH):
        before_NH, grown_NH = grown_NH, _widen(grown_NH) & within_NH
    return grown_NH


def _widen(rows_NH: _Rows) -> _Rows:
    """The mask and the neighbours of its pixels."""
    wider_NH = rows_NH | rows_NH << np.uint32(1) | rows_NH >> np.uint32(1)
    wider_NH[:, 1:] |= rows_NH[:, :-1]
    wider_NH[:, :-1] |= rows_NH[:, 1:]
    return wider_NH & _FULL_ROW
