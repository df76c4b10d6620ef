"""``internimage design count``: what sharing weights among the sampling points saves, counted."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.tables import table
from internimage.model import InternImageConfig
from internimage.model.design.sharing import PAPER_MEMORY, PAPER_PARAMETERS, Saving, count_savings
from internimage.model.variants import describe_variant


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage design count",
        description="Count what one matrix for all sampling points saves against one for each.",
    )
    found.add_argument("--variant", type=str, default="h", help="a name from `internimage models`")
    found.add_argument("--size", type=int, default=224, help="side of the square image in pixels")
    return found


def run(options: Namespace) -> int:
    """Print the table; returns the exit status."""
    if options.size < 1:
        raise ValueError(f"--size must be at least 1, got {options.size}")
    config = InternImageConfig.from_variant(options.variant)
    savings = count_savings(config, options.size)
    print(f"{describe_variant(config)}, one image of {options.size} x {options.size} pixels, float32\n")
    print("\n".join(table(*savings_table(savings))))
    print(f"\nThe paper says of H: {PAPER_PARAMETERS}% of the parameters and {PAPER_MEMORY}% of the memory.")
    return 0


def savings_table(savings: Sequence[Saving]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one for every way to count."""
    rows = [
        [f"{each.unit if each.unit == 'parameters' else 'MiB'}: {each.what}", *_numbers(each), f"{each.percent:.1f}%"]
        for each in savings
    ]
    return ["counted", "shared", "own weights", "saved"], rows


def _numbers(saving: Saving) -> list[str]:
    values = saving.shared, saving.own
    if saving.unit == "parameters":
        return [f"{value:,}" for value in values]
    return [f"{value / 2**20:,.1f}" for value in values]
