"""``internimage design space``: the candidates of a budget of parameters, and what each costs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

from internimage.cli.design.options import (
    add_network,
    add_output,
    describe_run,
    in_units,
    network_settings,
    output_files,
    read_count,
)
from internimage.cli.design.results import print_table, results_page, write_results
from internimage.inference.loading import pick_device
from internimage.model import create_model
from internimage.model.design.cost import activation_bytes, measure_latency, multiply_adds
from internimage.model.design.stacking import (
    CHANNELS,
    DEPTHS,
    GROUP_WIDTHS,
    NEAR,
    ORIGIN,
    Space,
    design_space,
)
from internimage.structures import DesignCost

_STEM = "design_space"
_MIB = 2**20
# More of the machine's memory than this share is not taken by networks that wait for their turn.
_USABLE = 0.5
# Of those that are left out.
_SHOWN = 3

log = logging.getLogger(__name__)


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage design space",
        description="All networks of the paper's stacking rules near a number of parameters: a table and a plot.",
    )
    found.add_argument("--budget", type=str, default="30M", help="parameters, such as 30M, 0.5M or 1.2B")
    found.add_argument("--channels", type=int, nargs="+", default=list(CHANNELS), help="choices of C1")
    found.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS), help="choices of L1 = L2 = L4")
    found.add_argument("--group_widths", type=int, nargs="+", default=list(GROUP_WIDTHS), help="choices of C'")
    add_network(found)
    found.add_argument("--repeats", type=int, default=5, help="rounds in which each is timed once; 0 times nothing")
    found.add_argument("--batch", type=int, default=1, help="images of a timed call")
    found.add_argument("--threads", type=int | None, default=None, help="of PyTorch; as it chooses by default")
    found.add_argument("--device", type=str | None, default=None, help="to time on; the fastest by default")
    add_output(found, _STEM)
    return found


def run(options: Namespace) -> int:
    """Count, time, print the table, write it with the plot; returns the exit status."""
    from internimage.visualization.design.space import design_space_figure

    budget, settings = read_count(options.budget, "--budget"), network_settings(options)
    if options.repeats < 0 or options.batch < 1:
        raise ValueError(f"--repeats must be at least 0 and --batch 1, got {options.repeats} and {options.batch}")
    space = design_space(budget, options.channels, options.depths, options.group_widths, **settings)
    if options.repeats:
        _check_memory(space)
    files = output_files(options, _STEM)
    facts = describe_run("space", options)
    costs = _timed(space, _counted(space, options.size), options)
    header, rows = space_table(costs, options.batch)
    notes = space_summary(space)
    print_table(header, rows, notes)
    page = results_page(f"The candidates of {in_units(budget)} parameters", facts, notes, header, rows)
    figure = design_space_figure(costs, ORIGIN.numbers, options.batch)
    write_results(files, page, _content(facts, space, costs), figure)
    return 0


def space_table(costs: Sequence[DesignCost], batch: int = 1) -> tuple[list[str], list[list[str]]]:
    """Header and rows, for a terminal and for pages; the paper's choice has a star."""
    is_timed = any(each.latency_samples_ms for each in costs)
    header = ["C1, C', L1, L3", "parameters", "multiply-adds, G", "kept, MiB", "plainly, MiB"]
    header += [f"latency of {batch}, ms", "fastest"] if is_timed else []
    notes = ["; ".join(filter(None, (each.note, "L3 = L1 is least" * each.is_least))) for each in costs]
    header += ["not as asked"] if any(notes) else []
    rows: list[list[str]] = []
    for each, note in zip(costs, notes, strict=True):
        star = " *" if each.numbers == ORIGIN.numbers else ""
        row = [", ".join(map(str, each.numbers)) + star, f"{each.parameters:,}", f"{each.multiply_adds / 1e9:.3g}"]
        row += [_digits(count / _MIB) for count in (each.activation_bytes, each.plain_activation_bytes)]
        if each.latency_ms is not None:
            row += [_digits(each.latency_ms), _digits(min(each.latency_samples_ms))]
        rows.append(row + [note] * any(notes))
    return header, rows


def _digits(value: float) -> str:
    """Three digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def space_summary(space: Space) -> list[str]:
    """What to know of the table, in sentences."""
    lines = [
        f"{len(space.candidates)} candidates near {in_units(space.budget)} parameters. {space.num_exact} have whole "
        f"groups by G = C / C' as it is written; {space.num_on_budget} come within half a block of the budget with "
        "L1 <= L3.",
        "kept: what one image leaves for the backward pass in float32, by the operators of a CPU here; plainly: by "
        "PyTorch's own.",
    ]
    if any(each.design == ORIGIN for each in space.candidates):
        lines.insert(1, "* is the paper's choice, InternImage-T.")
    if space.left_out:
        nearest = sorted(space.left_out, key=lambda each: abs(each.parameters - space.budget))[:_SHOWN]
        found = ", ".join(f"{each.design} with {in_units(each.parameters)}" for each in nearest)
        lines.append(
            f"{len(space.left_out)} choices are left out, because the rules keep them more than {NEAR:.0%} from the "
            f"budget; the nearest: {found}."
        )
    return lines


def _counted(space: Space, size: int) -> Iterator[DesignCost]:
    log.info("counting %d candidates at %d pixels", len(space.candidates), size)
    for each in space.candidates:
        yield DesignCost(
            each.design.numbers,
            each.parameters,
            multiply_adds(each.config, size),
            activation_bytes(each.config, size),
            activation_bytes(each.config, size, device="meta"),
            note=each.changes,
            is_least=each.is_least,
        )


def _timed(space: Space, costs: Iterator[DesignCost], options: Namespace) -> list[DesignCost]:
    """The costs with latencies, if any are wanted."""
    counted = list(costs)
    if not options.repeats:
        return counted
    device = pick_device(options.device)
    log.info("timing them in turns, %d rounds on %s", options.repeats, device)
    networks = {str(each.design): create_model(each.config).eval().to(device) for each in space.candidates}
    in_chans = space.candidates[0].config.in_chans
    image_NCHW = torch.randn(options.batch, in_chans, options.size, options.size, device=device)
    found = measure_latency(networks, image_NCHW, repeats=options.repeats, threads=options.threads)
    return [replace(each, latency_samples_ms=found[str(each.numbers)].samples_ms) for each in counted]


def _check_memory(space: Space) -> None:
    """All networks wait in memory for their turn."""
    needed = 4 * sum(each.parameters for each in space.candidates)
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if needed > _USABLE * there:
        raise ValueError(
            f"timing takes {needed / 2**30:.0f} GiB for {len(space.candidates)} networks and this machine has "
            f"{there / 2**30:.0f}: pass --repeats 0 to time nothing, or fewer channels, depths or group widths"
        )


def _content(facts: Mapping[str, str], space: Space, costs: Sequence[DesignCost]) -> dict[str, Any]:
    candidates: list[dict[str, Any]] = []
    for candidate, cost in zip(space.candidates, costs, strict=True):
        row = asdict(cost) | {"latency_ms": cost.latency_ms, "groups": candidate.config.groups}
        candidates.append(row | {"is_paper_choice": candidate.design == ORIGIN})
    return {
        "facts": facts,
        "budget": space.budget,
        "num_exact": space.num_exact,
        "num_on_budget": space.num_on_budget,
        "candidates": candidates,
        "left_out": [{"numbers": each.design.numbers, "parameters": each.parameters} for each in space.left_out],
    }
