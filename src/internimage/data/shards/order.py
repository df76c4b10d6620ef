"""The order of an epoch over shards: shuffled, and yet read a few shards at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

WINDOW = 4
"""Shards whose samples are mixed: about a gibibyte of pictures, ten thousand of ImageNet's size."""

# What the random numbers of shards and of samples begin with, so that neither repeats the other.
_SHARDS, _SAMPLES = 3, 4


def epoch_order(
    counts: Sequence[int],
    *,
    seed: int,
    epoch: int,
    process: int = 0,
    processes: int = 1,
    start: int = 0,
    window: int = WINDOW,
    on_window: Callable[[list[int]], None] | None = None,
) -> Iterator[int]:
    """The samples that a process takes in an epoch, one after the other.

    The shuffled shards are laid in a row; each process takes a part of that row, all of the same length, and mixes the
    samples of ``window`` shards at a time. Where the samples can't be shared out evenly, the last process takes some of
    the first a second time.

    Args:
        counts: the samples of each shard, which are numbered through.
        seed: of the training.
        epoch: another one has another order.
        process: of so many ``processes``.
        processes: that share the epoch.
        start: how many samples of this process to leave out, because it has had them.
        window: shards that are mixed.
        on_window: called with the shards of the next window when one begins.

    >>> list(epoch_order([3, 3, 3], seed=0, epoch=0, window=1))
    [6, 7, 8, 5, 4, 3, 1, 0, 2]
    """
    first = np.concatenate([[0], np.cumsum(counts)])
    shards = np.random.default_rng((seed, _SHARDS, epoch)).permutation(len(counts)).tolist()
    share = -(-int(first[-1]) // processes)
    pieces = _pieces([counts[shard] for shard in shards], process * share, share)
    windows = [pieces[at : at + window] for at in range(0, len(pieces), window)]
    for number, pieces_here in enumerate(windows):
        length = sum(stop - begin for _, begin, stop in pieces_here)
        if start >= length:
            start -= length
            continue
        if on_window and number + 1 < len(windows):
            on_window([shards[place] for place, _, _ in windows[number + 1]])
        rows = [first[shards[place]] + np.arange(begin, stop) for place, begin, stop in pieces_here]
        dice = np.random.default_rng((seed, _SAMPLES, epoch, process, number))
        yield from dice.permutation(np.concatenate(rows))[start:].tolist()
        start = 0


def _pieces(counts: Sequence[int], begin: int, length: int) -> list[tuple[int, int, int]]:
    """The part of a ring of shards that begins somewhere: places in the ring with the range of samples of each."""
    pieces: list[tuple[int, int, int]] = []
    total = sum(counts)
    begin %= max(total, 1)
    for turn in (0, total):
        passed = turn
        for place, count in enumerate(counts):
            lower, upper = max(begin, passed), min(begin + length, passed + count)
            if lower < upper:
                pieces.append((place, lower - passed, upper - passed))
            passed += count
    return pieces
