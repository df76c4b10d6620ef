"""The stacking rules: four numbers make a network, and a budget of parameters leaves few of them.

Source: section 3.2, arXiv:2211.05778. Ci = 2**(i-1) C1, Gi = Ci / C', L1 = L2 = L4, L1 <= L3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import log
from operator import not_
from typing import Any

from internimage.model.config import NUM_STAGES, InternImageConfig
from internimage.model.design.cost import parameter_count, parameters_by_depth
from internimage.model.design.rules import Numbers, nearest_groups

# The paper's own space, around the size of ResNet-50.
BUDGET = 30_000_000
# A candidate may be this share above or below its budget.
NEAR = 0.25
CHANNELS, DEPTHS, GROUP_WIDTHS = (48, 64, 80), (1, 2, 3, 4, 5), (16, 32)


@dataclass(frozen=True, order=True)
class Design:
    """The paper's four numbers.

    Args:
        channels: C1, channels of stage 1.
        group_width: C', channels per group.
        depth_outer: L1, blocks of stages 1, 2 and 4.
        depth_inner: L3, blocks of stage 3.
    """

    channels: int
    group_width: int
    depth_outer: int
    depth_inner: int

    def __str__(self) -> str:
        return str(self.numbers)

    @property
    def numbers(self) -> Numbers:
        """The four in the paper's order."""
        return self.channels, self.group_width, self.depth_outer, self.depth_inner

    @property
    def total_depth(self) -> int:
        """D = 3 L1 + L3."""
        return 3 * self.depth_outer + self.depth_inner

    def config(self, **settings: Any) -> InternImageConfig:
        """The network by the rules as they are written; ``ValueError`` with the nearest designs if there is none.

        Args:
            settings: other fields of `InternImageConfig`.
        """
        return InternImageConfig.stacked(*self.numbers, **settings)

    def rounded_config(self, **settings: Any) -> tuple[InternImageConfig, str]:
        """The network, and in words what of its groups is not by rule (2), or "".

        A stage whose width is no multiple of C' gets the nearest whole number of groups that divides the width, and
        of two as near the larger. The other rules hold as they are written.

        >>> Design(48, 32, 1, 1).rounded_config()[1]
        'stage 1: 2 groups of 24'
        """
        groups: list[int] = []
        changes: list[str] = []
        for stage in range(NUM_STAGES):
            width = self.channels * 2**stage
            groups.append(nearest_groups(width, self.group_width))
            if width != groups[-1] * self.group_width:
                changes.append(f"stage {stage + 1}: {groups[-1]} groups of {width // groups[-1]}")
        # Width and depths are checked as every network's, with a group width that divides.
        divides = 1 if self.channels % 2 else self.channels // groups[0]
        legal = Design(self.channels, divides, self.depth_outer, self.depth_inner).config(**settings)
        return replace(legal, groups=tuple(groups)), ", ".join(changes)


# What the paper chose of them: InternImage-T.
ORIGIN = Design(64, 16, 4, 18)


@dataclass(frozen=True)
class Candidate:
    """A design whose depth of stage 3 a budget decided.

    Args:
        design: the four numbers.
        config: the network.
        parameters: of the classifier.
        changes: what of its groups is not by rule (2), or "".
        is_least: the budget asks for less depth than rule (4) allows; this is the least, L3 = L1.
    """

    design: Design
    config: InternImageConfig
    parameters: int
    changes: str
    is_least: bool


@dataclass(frozen=True)
class Space:
    """What is left of a space under a budget of parameters.

    Args:
        budget: parameters that were asked for.
        candidates: one for each choice of C1, L1 and C' that comes near it (`NEAR`).
        left_out: the choices that don't, each as near as the rules let it.
    """

    budget: int
    candidates: tuple[Candidate, ...]
    left_out: tuple[Candidate, ...]

    @property
    def num_exact(self) -> int:
        """Candidates with whole numbers of groups by rule (2) as it is written."""
        return sum(not each.changes for each in self.candidates)

    @property
    def num_on_budget(self) -> int:
        """Candidates that the budget gave their depth, so that they are within half a block of stage 3."""
        return sum(not each.is_least for each in self.candidates)


def design_space(
    budget: int = BUDGET,
    channels: Sequence[int] = CHANNELS,
    depths: Sequence[int] = DEPTHS,
    group_widths: Sequence[int] = GROUP_WIDTHS,
    **settings: Any,
) -> Space:
    """Every choice of C1, L1 and C', with the L3 that comes nearest to the budget.

    Nothing large is built: parameters are linear in depth.

    Args:
        budget: parameters of the classifier.
        channels: choices of C1.
        depths: choices of L1.
        group_widths: choices of C'; a C1 that is no multiple gets other groups (`Design.rounded_config`).
        settings: other fields of `InternImageConfig`.

    Raises:
        ValueError: no choices, illegal ones, or a budget that none comes near; with the nearest legal ones.

    >>> space = design_space()
    >>> len(space.candidates), space.num_exact, space.num_on_budget
    (30, 20, 28)
    """
    if min(map(len, (channels, depths, group_widths))) < 1:
        raise ValueError("a space needs at least one width, one depth and one group width")
    if budget < 1:
        raise ValueError(f"a budget is at least one parameter, got {budget}")
    found = [
        _candidate(budget, Design(width, group_width, depth, depth), settings)
        for width in dict.fromkeys(channels)
        for depth in dict.fromkeys(depths)
        for group_width in dict.fromkeys(group_widths)
    ]
    near = [abs(each.parameters / budget - 1) <= NEAR for each in found]
    space = Space(budget, tuple(compress(found, near)), tuple(compress(found, map(not_, near))))
    if not space.candidates:
        nearest = sorted(found, key=lambda each: abs(log(each.parameters / budget)))[:3]
        listed = ", ".join(f"{each.design} with {each.parameters:,}" for each in nearest)
        raise ValueError(
            f"no design of this space is within {NEAR:.0%} of {budget:,} parameters; the nearest legal ones "
            f"(C1, C', L1, L3) are {listed}: choose another budget, other widths or other depths"
        )
    return space


def _candidate(budget: int, least: Design, settings: dict[str, Any]) -> Candidate:
    """The design with L3 from the budget, of which ``least`` has the least depth."""
    config, _ = least.rounded_config(**settings)
    more = round((budget - parameter_count(config)) / parameters_by_depth(config)[1][2])
    design = replace(least, depth_inner=least.depth_inner + max(0, more))
    config, changes = design.rounded_config(**settings)
    return Candidate(design, config, parameter_count(config), changes, more < 0)
