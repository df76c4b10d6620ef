"""``internimage visualize WHAT ...``: finds the picture's module, which has its own options."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from jsonargparse import ArgumentParser

# What -> one line for people. Each is a module here with parser() and run(options).
_PICTURES: dict[str, str] = {
    "sampling": "where a block looks from one place of a picture",
    "reach": "how far each block looks",
    "entropy": "where each block is choosy among its points",
    "activation": "which regions speak for a class",
    "features": "the maps of the four stages as colours",
    "receptive_field": "what of the input changes the middle of a map, network by network",
    "run": "curves, confusions and predictions of a run, from its folder alone",
    "robustness": "what shifts, turns, noise and blur do to the accuracy, beside a peer",
}


def main(arguments: Sequence[str]) -> int:
    """Draw one kind of picture; returns the exit status."""
    parser = ArgumentParser(prog="internimage visualize", description="See where a network looks, and what it learned.")
    commands = parser.add_subcommands(required=True, dest="what")
    for name, line in _PICTURES.items():
        commands.add_subcommand(name, _module(name).parser(), help=line)
    options = parser.parse_args(list(arguments))
    return _module(options.what).run(options[options.what])


def _module(name: str) -> ModuleType:
    return import_module(f"internimage.cli.visualize.{name}")
