"""Class scores of a picture of any size, in bands of rows: seen whole or in windows, at several sizes, mirrored.

A band is as much as memory has to hold: of a picture seen in windows, never more rows than a window has.

Source: ``encoder_decoder.py`` of mmseg 0.27 (``whole_inference``, ``slide_inference``, ``aug_test``).

Shape legend: N windows, C classes, H W picture, R rows of a band.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from internimage.structures import Viewing

Network = Callable[[Tensor], Tensor]
"""From normalised inputs (N, 3, h, w) to scores (N, C, about h/4, about w/4)."""

# Numbers of one band: 16 MiB in float32.
_BAND = 2**22


@dataclass(frozen=True, eq=False)
class Look:
    """One look at a picture.

    Args:
        pixels: (3, h, w) of uint8, of the size that ``viewing`` asks for.
        viewing: whole or in windows, and how to normalise.
        mirrored: look at it from left to right.
    """

    pixels: Tensor
    viewing: Viewing
    mirrored: bool = False


def probabilities(
    network: Network, looks: Sequence[Look], size: tuple[int, int], *, batch_size: int = 1
) -> Iterator[Tensor]:
    """What the looks say of each pixel on average, in bands (C, R, W) of the picture from the top down.

    Args:
        network: on the device of the looks' pixels.
        looks: at least one.
        size: (height, width) of the picture.
        batch_size: windows that go through the network together.

    Raises:
        ValueError: scores that are no numbers.
    """
    scans = [_Scan(network, look, batch_size) for look in looks]
    for band in _bands(scans, size):
        total_CRW: Tensor | None = None
        for scan in scans:
            found_CRW = scan.read(band, size).float().softmax(0)
            total_CRW = found_CRW if total_CRW is None else total_CRW.add_(found_CRW)
        assert total_CRW is not None
        yield total_CRW if len(scans) == 1 else total_CRW.div_(len(scans))


def label_map(network: Network, looks: Sequence[Look], size: tuple[int, int], *, batch_size: int = 1) -> Tensor:
    """The most probable class of each pixel, (H, W) of uint8 on the CPU; see `probabilities`."""
    if len(looks) == 1:
        # The best score is the best probability, without the exponentials.
        scan = _Scan(network, looks[0], batch_size)
        found = (scan.read(band, size) for band in _bands([scan], size))
    else:
        found = probabilities(network, looks, size, batch_size=batch_size)
    return torch.cat([band_CRW.argmax(0).to(torch.uint8).cpu() for band_CRW in found])


def scaled(viewing: Viewing, size: tuple[int, int], scale: float) -> Viewing:
    """The same with a picture of ``size`` (height, width) made ``scale`` times as large."""
    short, long = viewing.frame or (min(size), max(size))
    return replace(viewing, frame=(max(int(short * scale), 1), max(int(long * scale), 1)))


def _bands(scans: Sequence[_Scan], size: tuple[int, int]) -> Iterator[range]:
    height, width = size
    rows = min(max(_BAND // (scans[0].num_classes * width), 1), height)
    return (range(top, min(top + rows, height)) for top in range(0, height, rows))


class _Rows(Protocol):
    """Scores of a network's input, (C, height, width), read from the top down."""

    size: tuple[int, int]
    num_classes: int

    def read(self, first: int, last: int) -> Tensor:
        """The rows from ``first`` to before ``last``; neither ever goes back."""
        ...


class _Scan:
    """Scores of one look, at the picture's size."""

    def __init__(self, network: Network, look: Look, batch_size: int) -> None:
        self.mirrored = look.mirrored
        pixels = look.pixels.flip(-1) if look.mirrored else look.pixels
        look = replace(look, pixels=pixels)
        self.rows: _Rows = _Whole(network, look) if look.viewing.window is None else _Windows(network, look, batch_size)
        self.num_classes = self.rows.num_classes

    def read(self, band: range, size: tuple[int, int]) -> Tensor:
        scores_CRW = _resized_rows(self.rows.read, self.rows.size, size, band)
        return scores_CRW.flip(-1) if self.mirrored else scores_CRW


class _Whole:
    """A picture that went through the network as a whole; what is kept is as small as the network's scores."""

    def __init__(self, network: Network, look: Look) -> None:
        self.size = (look.pixels.shape[-2], look.pixels.shape[-1])
        # 16 bits, as autocast gives them, are too few to resize and to tell near scores apart.
        self.scores_CHW = _checked(network(normalized(look.pixels[None], look.viewing)))[0].float()
        self.num_classes = self.scores_CHW.shape[0]

    def read(self, first: int, last: int) -> Tensor:
        own = (self.scores_CHW.shape[-2], self.scores_CHW.shape[-1])
        return _resized_rows(lambda top, end: self.scores_CHW[:, top:end], own, self.size, range(first, last))


class _Windows:
    """A picture in overlapping windows, row of windows by row of windows."""

    def __init__(self, network: Network, look: Look, batch_size: int) -> None:
        assert look.viewing.window is not None
        self.network, self.look, self.batch_size = network, look, batch_size
        self.size = (look.pixels.shape[-2], look.pixels.shape[-1])
        (high, wide), (down, across) = look.viewing.window, look.viewing.steps
        self.window = (min(high, self.size[0]), min(wide, self.size[1]))
        self.tops = _starts(self.size[0], high, down)
        self.lefts = _starts(self.size[1], wide, across)
        # Every pixel of a column is seen by as many windows as the column, times those of its row.
        self.seen_H, self.seen_W = (
            _seen(starts, side, whole, look.pixels.device)
            for starts, side, whole in zip((self.tops, self.lefts), self.window, self.size, strict=True)
        )
        # Rows from `first` on, of which those before `done` are finished.
        self.first = self.done = 0
        self.next = 0
        self.sums_CRW = self._look_along(0)
        self.num_classes = self.sums_CRW.shape[0]
        self._finish()

    def read(self, first: int, last: int) -> Tensor:
        while self.done < last:
            self._go_on(first)
        sums_CRW = self.sums_CRW[:, first - self.first : last - self.first]
        return sums_CRW / (self.seen_H[first:last, None] * self.seen_W)

    def _go_on(self, first: int) -> None:
        """Look along the next row of windows; rows before ``first`` are no longer needed."""
        top = self.tops[self.next]
        # What the windows will add to has to stay.
        gone = max(min(first, top) - self.first, 0)
        kept_CRW = self.sums_CRW[:, gone:]
        self.first += gone
        before = top - self.first
        band_CRW = self._look_along(top)
        # In place: what overlaps belongs to nobody else.
        band_CRW[:, : kept_CRW.shape[1] - before] += kept_CRW[:, before:]
        self.sums_CRW = torch.cat((kept_CRW[:, :before], band_CRW), 1)
        self._finish()

    def _finish(self) -> None:
        self.next += 1
        self.done = self.tops[self.next] if self.next < len(self.tops) else self.size[0]

    def _look_along(self, top: int) -> Tensor:
        """Summed scores (C, window's height, W) of a row of windows."""
        high, wide = self.window
        band_CRW: Tensor | None = None
        for start in range(0, len(self.lefts), self.batch_size):
            lefts = self.lefts[start : start + self.batch_size]
            windows = [self.look.pixels[:, top : top + high, left : left + wide] for left in lefts]
            scores_NCHW = _checked(self.network(normalized(torch.stack(windows), self.look.viewing)))
            scores_NCHW = _resize(scores_NCHW.float(), self.window)
            if band_CRW is None:
                band_CRW = scores_NCHW.new_zeros(scores_NCHW.shape[1], high, self.size[1])
            for left, scores_CHW in zip(lefts, scores_NCHW, strict=True):
                band_CRW[:, :, left : left + wide] += scores_CHW
        assert band_CRW is not None
        return band_CRW


def normalized(pixels_NCHW: Tensor, viewing: Viewing) -> Tensor:
    """Pixels from 0 to 255 as a segmenter takes them, float32."""
    mean, std = (
        255 * pixels_NCHW.new_tensor(each, dtype=torch.float32).view(3, 1, 1) for each in (viewing.mean, viewing.std)
    )
    return (pixels_NCHW.float() - mean) / std


def _checked(scores_NCHW: Tensor) -> Tensor:
    if not scores_NCHW.isfinite().all():
        raise ValueError("scores that are not finite")
    return scores_NCHW


def _starts(whole: int, window: int, step: int) -> list[int]:
    """Where windows begin along one side; the last is moved back inside.

    >>> _starts(200, 96, 64), _starts(90, 96, 64)
    ([0, 64, 104], [0])
    """
    count = max(whole - window + step - 1, 0) // step + 1
    return [max(min(number * step, whole - window), 0) for number in range(count)]


def _seen(starts: Sequence[int], window: int, whole: int, device: torch.device) -> Tensor:
    seen = torch.zeros(whole, device=device)
    for start in starts:
        seen[start : start + window] += 1
    return seen


def _resized_rows(
    read: Callable[[int, int], Tensor], own: tuple[int, int], size: tuple[int, int], band: range
) -> Tensor:
    """Rows of scores at another size, bilinear, as ``interpolate(..., align_corners=False)`` gives them."""
    if own == size:
        return read(band.start, band.stop)
    if len(band) == size[0]:
        return _resize(read(0, own[0])[None], size)[0]
    scale = own[0] / size[0]
    places = [max((row + 0.5) * scale - 0.5, 0.0) for row in band]
    upper = [min(math.floor(place), own[0] - 1) for place in places]
    lower = [min(row + 1, own[0] - 1) for row in upper]
    rows_CRW = read(upper[0], lower[-1] + 1).float()
    share_R1 = rows_CRW.new_tensor([place - row for place, row in zip(places, upper, strict=True)])[:, None]
    first_R, second_R = (torch.tensor(rows, device=rows_CRW.device) - upper[0] for rows in (upper, lower))
    mixed_CRW = torch.lerp(rows_CRW[:, first_R], rows_CRW[:, second_R], share_R1)
    return _resize(mixed_CRW[None], (len(band), size[1]))[0]


def _resize(scores_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(scores_NCHW, size=size, mode="bilinear", align_corners=False)
