"""``internimage design scale``: a network grown by the paper's scaling rule, and the published ones beside it."""

from __future__ import annotations

import logging

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.design.options import add_network, in_units, network_settings, read_count
from internimage.cli.tables import table
from internimage.model import InternImageConfig
from internimage.model.design.cost import multiply_adds, parameter_count
from internimage.model.design.rules import DEPTH_GROWTH, STEP, WIDTH_EXPONENT, WIDTH_GROWTH
from internimage.model.design.scaling import (
    PUBLISHED,
    Scaled,
    compare_published,
    design_of,
    differences,
    scale,
    scale_to,
)

_STEPS = range(6)

log = logging.getLogger(__name__)


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage design scale",
        description="The paper's scaling rule: D' = alpha^phi D, C1' = beta^phi C1; a valid network and how far it is.",
    )
    found.add_argument("--base", type=str, default="t", help="a variant of `internimage models` to start from")
    found.add_argument("--phi", type=float | None, default=None, help="the rule's number; each 1 doubles the network")
    found.add_argument("--params", type=str | None, default=None, help="parameters to come near to, such as 97M")
    found.add_argument("--flops", type=str | None, default=None, help="multiply-adds to come near to, such as 16G")
    found.add_argument("--paper", action="store_true", help="the published variants beside the rule")
    add_network(found)
    return found


def run(options: Namespace) -> int:
    """Print the network, or the published ones; returns the exit status."""
    wanted = [name for name in ("phi", "params", "flops") if getattr(options, name) is not None]
    if len(wanted) != (0 if options.paper else 1):
        raise ValueError("choose one of --phi, --params, --flops and --paper, such as --params 97M")
    if options.paper:
        print("\n".join(paper_lines(options.base)))
        return 0
    base = InternImageConfig.from_variant(options.base, **network_settings(options))
    found = _scaled(base, options)
    print("\n".join(scaled_lines(options.base, base, found, options.size)))
    return 0


def _scaled(base: InternImageConfig, options: Namespace) -> Scaled:
    if options.phi is not None:
        return scale(base, options.phi)
    if options.params is not None:
        return scale_to(base, read_count(options.params, "--params"))
    log.info("counting multiply-adds at %d pixels", options.size)
    return scale_to(base, read_count(options.flops, "--flops"), lambda config: multiply_adds(config, options.size))


def scaled_lines(name: str, base: InternImageConfig, found: Scaled, size: int) -> list[str]:
    """A scaled network: its numbers, what the rule said, and what it costs."""
    origin, rule = design_of(base), (f"{found.ruled_channels:.1f}", f"{found.ruled_depth:.1f}")
    rows = [
        ["C1", str(origin.channels), rule[0], str(found.design.channels), f"{found.width_off:+.1%}"],
        ["D = 3 L1 + L3", str(origin.total_depth), rule[1], str(found.design.total_depth), f"{found.depth_off:+.1%}"],
    ]
    costs = [
        ("parameters", parameter_count(base), parameter_count(found.config)),
        (f"multiply-adds at {size}", multiply_adds(base, size), multiply_adds(found.config, size)),
    ]
    for what, before, after in costs:
        ruled = before * STEP**found.phi
        rows.append([what, in_units(before), in_units(ruled), in_units(after), f"{after / ruled - 1:+.1%}"])
    same = [each for each in PUBLISHED if design_of(InternImageConfig.from_variant(each)) == found.design]
    known = f", as InternImage-{same[0].upper()} has them" if same else ""
    depths, groups = ("-".join(map(str, values)) for values in (found.config.depths, found.config.groups))
    return [
        f"phi {found.phi:.2f} from {name} {origin}: (C1, C', L1, L3) = {found.design}{known}",
        f"channels {found.design.channels}, depths {depths}, groups {groups}",
        "",
        *table(["", name, "rule", "rounded", "off the rule"], rows),
        "",
        f"InternImageConfig.stacked{found.design} builds it.",
    ]


def paper_lines(base: str = "t") -> list[str]:
    """Two tables: the published variants beside the rule, and the rule's whole steps beside the published variants."""
    return [
        f"The rule from {base}: D' = {DEPTH_GROWTH}^phi D, C1' = {WIDTH_GROWTH}^phi C1; "
        f"{DEPTH_GROWTH} * {WIDTH_GROWTH}^{WIDTH_EXPONENT} = {STEP:.2f} times the parameters a step.",
        "",
        *table(*published_table(base)),
        "",
        *table(*steps_table(base)),
    ]


def published_table(base: str = "t") -> tuple[list[str], list[list[str]]]:
    """Each published variant: the phi that its width, depth and parameters want, and where the rule differs."""
    header = ["", "C1, C', L1, L3", "parameters", "phi by C1", "by D", "by parameters", "rule at that", "published"]
    rows = [
        [
            each.name.upper(),
            ", ".join(map(str, each.design.numbers)),
            in_units(each.parameters),
            f"{each.phi_by_width:.2f}",
            f"{each.phi_by_depth:.2f}",
            f"{each.phi_by_parameters:.2f}",
            ", ".join(map(str, each.ruled.design.numbers)),
            "; ".join(each.differences) or "the same",
        ]
        for each in compare_published(base)
    ]
    return header, rows


def steps_table(base: str = "t") -> tuple[list[str], list[list[str]]]:
    """The rule's whole steps, and the published variant whose width is nearest."""
    start = InternImageConfig.from_variant(base)
    header = ["phi", "rule: C1, D", "rounded: C1, C', L1, L3", "parameters", "nearest", "published"]
    rows: list[list[str]] = []
    published = compare_published(base)
    for phi in _STEPS:
        found = scale(start, phi)
        near = min(published, key=lambda each: abs(each.phi_by_width - phi))
        rows.append(
            [
                str(phi),
                f"{found.ruled_channels:.1f}, {found.ruled_depth:.1f}",
                ", ".join(map(str, found.design.numbers)),
                in_units(parameter_count(found.config)),
                near.name.upper(),
                "; ".join(differences(near.design, found.design)) or "the same",
            ]
        )
    return header, rows
