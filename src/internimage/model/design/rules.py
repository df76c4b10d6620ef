"""The arithmetic of the paper's rules on a design's four numbers (C1, C', L1, L3); `model.config` builds on it.

Source: section 3.2, arXiv:2211.05778.
"""

from __future__ import annotations

import math

# Of the scaling rule: alpha and beta. A step of phi multiplies parameters by alpha * beta**1.99, about 2.
DEPTH_GROWTH, WIDTH_GROWTH, WIDTH_EXPONENT = 1.09, 1.36, 1.99
STEP = DEPTH_GROWTH * WIDTH_GROWTH**WIDTH_EXPONENT
# Beyond this, either way, no network is meant.
MAX_PHI = 40

# C1, C', L1, L3.
Numbers = tuple[int, int, int, int]


def check_design(channels: int, group_width: int, depth_outer: int, depth_inner: int) -> None:
    """Raise ``ValueError`` for a design that is no network by the stacking rules, with the nearest that are.

    >>> check_design(48, 32, 4, 18)
    Traceback (most recent call last):
    ValueError: group_width must divide channels, got 32 and 48; the nearest legal (C1, C', L1, L3): (64, 32, 4, 18), \
(48, 24, 4, 18), (48, 48, 4, 18)
    """
    if not all(type(each) is int for each in (channels, group_width, depth_outer, depth_inner)):
        raise ValueError(
            "channels, group_width, depth_outer and depth_inner must be integers, "
            f"got {channels!r}, {group_width!r}, {depth_outer!r} and {depth_inner!r}"
        )
    if channels < 2 or channels % 2:
        problem = f"channels must be even and positive (the stem has half of them), got {channels}"
    elif group_width < 1 or channels % group_width:
        problem = f"group_width must divide channels, got {group_width} and {channels}"
    elif not 1 <= depth_outer <= depth_inner:
        problem = f"the rules want 1 <= depth_outer <= depth_inner, got {depth_outer} and {depth_inner}"
    else:
        return
    raise ValueError(f"{problem}; {nearest_in_words((channels, group_width, depth_outer, depth_inner))}")


def nearest_designs(numbers: Numbers, count: int = 3) -> list[Numbers]:
    """Designs that the rules allow, nearest first: other widths, group widths or depths, as few changes as possible.

    A legal design is its own only neighbour.

    >>> nearest_designs((64, 16, 5, 4))
    [(64, 16, 4, 4), (64, 16, 5, 5)]
    """
    channels, group_width, outer, inner = max(2, numbers[0]), *(max(1, each) for each in numbers[1:])
    depths = {(outer, inner)} if outer <= inner else {(inner, inner), (outer, outer)}
    found = [(*widths, *depth) for widths in _legal_widths(channels, group_width) for depth in depths]
    wanted = channels, group_width, outer, inner
    return sorted(found, key=lambda each: (_distance(each, wanted), each))[:count]


def nearest_in_words(numbers: Numbers) -> str:
    """The end of an error's sentence.

    >>> nearest_in_words((64, 16, 0, 18))
    "the nearest legal (C1, C', L1, L3): (64, 16, 1, 18)"
    """
    return f"the nearest legal (C1, C', L1, L3): {', '.join(map(str, nearest_designs(numbers)))}"


def scaled_design(numbers: Numbers, phi: float) -> Numbers:
    """The scaling rule, rounded to a legal design.

    The width becomes a multiple of the group width; L1 keeps its share of the depth, and L3 takes the rest.

    Raises:
        ValueError: phi out of range.

    >>> scaled_design((64, 16, 4, 18), 1)
    (80, 16, 4, 21)
    """
    if not abs(phi) <= MAX_PHI:
        raise ValueError(f"phi must be a number from -{MAX_PHI} to {MAX_PHI}, got {phi}")
    channels, group_width, outer, inner = numbers
    total = round((3 * outer + inner) * DEPTH_GROWTH**phi)
    depth_outer = max(1, round(outer * DEPTH_GROWTH**phi))
    depth_inner = max(depth_outer, total - 3 * depth_outer)
    # The stem has half of the channels, so they stay even.
    unit = math.lcm(2, group_width)
    return max(1, round(channels * WIDTH_GROWTH**phi / unit)) * unit, group_width, depth_outer, depth_inner


def nearest_groups(width: int, group_width: int) -> int:
    """The whole number of groups nearest to ``width / group_width`` that divides the width; of two, the larger.

    >>> nearest_groups(64, 16), nearest_groups(48, 32), nearest_groups(80, 32)
    (4, 2, 2)
    """
    if group_width < 1:
        raise ValueError(f"a group has at least one channel, got group width {group_width}")
    return min(_divisors(width), key=lambda groups: (abs(groups - width / group_width), -groups))


def _legal_widths(channels: int, group_width: int) -> set[tuple[int, int]]:
    """Pairs of an even C1 and a C' that divides it: the pair itself, or those on either side of each."""
    unit = math.lcm(2, group_width)
    if channels % unit == 0:
        return {(channels, group_width)}
    found = {(each, group_width) for each in (channels // unit * unit, (channels // unit + 1) * unit) if each}
    if channels % 2 == 0:
        divisors = _divisors(channels)
        found.add((channels, max(each for each in divisors if each <= group_width)))
        found.add((channels, min((each for each in divisors if each >= group_width), default=channels)))
    return found


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _distance(first: Numbers, second: Numbers) -> float:
    return sum(abs(math.log(one / other)) for one, other in zip(first, second, strict=True))
