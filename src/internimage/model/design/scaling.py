"""The scaling rule: one number grows a design in depth and width, and rounding takes it off the rule by little.

Source: section 3.2, arXiv:2211.05778. D' = alpha**phi D, C1' = beta**phi C1, with D = 3 L1 + L3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log

from internimage.model.config import InternImageConfig
from internimage.model.design.cost import parameter_count
from internimage.model.design.rules import DEPTH_GROWTH, MAX_PHI, STEP, WIDTH_GROWTH, scaled_design
from internimage.model.design.stacking import NEAR, Design

# The variants that the paper calls scaled from T; G was published later, and leaves the pattern.
PUBLISHED = ("t", "s", "b", "l", "xl", "h")
# Finer than any rounding of a design that is built.
_GRAIN = 0.01


@dataclass(frozen=True)
class Scaled:
    """A design beside what the rule says before rounding.

    Args:
        phi: the rule's number.
        design: the rounded four numbers.
        config: the network.
        ruled_channels: beta**phi C1.
        ruled_depth: alpha**phi D.
        ruled_outer: alpha**phi L1.
    """

    phi: float
    design: Design
    config: InternImageConfig
    ruled_channels: float
    ruled_depth: float
    ruled_outer: float

    @property
    def width_off(self) -> float:
        """By which share C1 lies above the rule, or below."""
        return self.design.channels / self.ruled_channels - 1

    @property
    def depth_off(self) -> float:
        """By which share D lies above the rule, or below."""
        return self.design.total_depth / self.ruled_depth - 1


@dataclass(frozen=True)
class Comparison:
    """A published variant beside the rule.

    Args:
        name: of the variant, short.
        design: its four numbers.
        parameters: of its classifier.
        phi_by_width: the phi that gives its C1 from the base's.
        phi_by_depth: the same of D.
        phi_by_parameters: the same of parameters, by alpha * beta**1.99 a step.
        ruled: what the rule gives at ``phi_by_parameters``.
    """

    name: str
    design: Design
    parameters: int
    phi_by_width: float
    phi_by_depth: float
    phi_by_parameters: float
    ruled: Scaled

    @property
    def differences(self) -> tuple[str, ...]:
        """Which of the four numbers the rule gives otherwise."""
        return differences(self.design, self.ruled.design)


def differences(design: Design, other: Design) -> tuple[str, ...]:
    """Which of the four numbers are others, with both.

    >>> differences(Design(64, 16, 4, 18), Design(64, 16, 4, 20))
    ('L3 18, not 20',)
    """
    pairs = zip(("C1", "C'", "L1", "L3"), design.numbers, other.numbers, strict=True)
    return tuple(f"{name} {own}, not {another}" for name, own, another in pairs if own != another)


def design_of(config: InternImageConfig) -> Design:
    """The four numbers of a network that follows the stacking rules; ``ValueError`` with the nearest if it does not.

    >>> design_of(InternImageConfig.from_variant("h")).numbers
    (320, 32, 6, 32)
    """
    config.scaled(0)
    return Design(config.channels, config.channels // config.groups[0], config.depths[0], config.depths[2])


def scale(base: InternImageConfig, phi: float) -> Scaled:
    """`InternImageConfig.scaled`, with what the rule says before rounding.

    Raises:
        ValueError: phi out of range, or a base that does not follow the stacking rules.

    >>> found = scale(InternImageConfig.from_variant("t"), 1)
    >>> found.design.numbers, round(found.ruled_channels, 1), round(found.ruled_depth, 1)
    ((80, 16, 4, 21), 87.0, 32.7)
    """
    design, config = design_of(base), base.scaled(phi)
    depth = DEPTH_GROWTH**phi
    return Scaled(
        phi,
        design_of(config),
        config,
        design.channels * WIDTH_GROWTH**phi,
        design.total_depth * depth,
        design.depth_outer * depth,
    )


def scale_to(
    base: InternImageConfig, target: int, cost: Callable[[InternImageConfig], int] = parameter_count
) -> Scaled:
    """The scaled design whose cost comes nearest to a target; of the phi that round to it, the nearest to the rule.

    Args:
        base: where the rule starts.
        target: of the cost.
        cost: of a network, such as `parameter_count`; it should grow with width and depth.

    Raises:
        ValueError: a target that no scaled design comes near (`NEAR`), with those on either side, or a base that does
            not follow the stacking rules.

    >>> scale_to(InternImageConfig.from_variant("t"), 97_000_000).design.numbers
    (112, 16, 5, 19)
    """
    if target < 1:
        raise ValueError(f"a budget is at least 1, got {target}")
    designs = _rounded(design_of(base))

    @cache
    def costs(index: int) -> int:
        return cost(scale(base, designs[index][1]).config)

    middle = bisect_left(range(len(designs)), target, key=costs)
    # Where rounding raises L1, L3 may fall: costs are nearly sorted, not quite.
    around = range(max(0, middle - 3), min(len(designs), middle + 3))
    best = min(around, key=lambda index: abs(log(costs(index) / target)))
    if abs(costs(best) / target - 1) > NEAR:
        nearest = sorted(around, key=lambda index: abs(log(costs(index) / target)))[:2]
        listed = " and ".join(f"{designs[index][0]} with {costs(index):,}" for index in sorted(nearest))
        raise ValueError(
            f"no design scaled from {design_of(base)} is within {NEAR:.0%} of {target:,}; "
            f"the nearest legal ones (C1, C', L1, L3) are {listed}"
        )
    return scale(base, designs[best][1])


def _rounded(base: Design) -> list[tuple[Design, float]]:
    """Every design that the rule rounds to, small to large, with the phi at which it lies nearest to the rule."""
    found: dict[Design, tuple[float, float]] = {}
    for number in range(round(-MAX_PHI / _GRAIN), round(MAX_PHI / _GRAIN) + 1):
        phi = number * _GRAIN
        design = Design(*scaled_design(base.numbers, phi))
        width = log(design.channels / (base.channels * WIDTH_GROWTH**phi))
        depth = log(design.total_depth / (base.total_depth * DEPTH_GROWTH**phi))
        off = abs(width) + abs(depth)
        if design not in found or off < found[design][0]:
            found[design] = off, phi
    return [(design, phi) for design, (_, phi) in found.items()]


def compare_published(base: str = "t") -> list[Comparison]:
    """The published variants beside the rule that starts at one of them.

    >>> [each.differences for each in compare_published()][:2]
    [(), ('L3 21, not 20',)]
    """
    start = InternImageConfig.from_variant(base)
    origin, parameters = design_of(start), parameter_count(start)
    found: list[Comparison] = []
    for name in PUBLISHED:
        config = InternImageConfig.from_variant(name)
        design, own = design_of(config), parameter_count(config)
        phi = log(own / parameters) / log(STEP)
        found.append(
            Comparison(
                name,
                design,
                own,
                log(design.channels / origin.channels) / log(WIDTH_GROWTH),
                log(design.total_depth / origin.total_depth) / log(DEPTH_GROWTH),
                phi,
                scale(start, phi),
            )
        )
    return found
