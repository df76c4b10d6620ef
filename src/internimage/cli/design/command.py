"""``internimage design QUESTION ...``: finds the question's module, which has its own options."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from jsonargparse import ArgumentParser

# Question -> one line for people. Each is a module here with parser() and run(options).
_QUESTIONS: dict[str, str] = {
    "space": "the candidates of a budget by the paper's stacking rules, with their costs",
    "search": "train a budget's candidates, leave the worst behind, rank the rest",
    "ablate": "the three changes from DCNv2 to DCNv3, each undone and trained",
    "count": "what sharing weights among the sampling points saves",
    "scale": "a network grown by the paper's scaling rule, and the published ones beside it",
}


def main(arguments: Sequence[str]) -> int:
    """Answer one question; returns the exit status."""
    parser = ArgumentParser(prog="internimage design", description="The paper's rules on your own budget.")
    commands = parser.add_subcommands(required=True, dest="question")
    for name, line in _QUESTIONS.items():
        commands.add_subcommand(name, _module(name).parser(), help=line)
    options = parser.parse_args(list(arguments))
    return _module(options.question).run(options[options.question])


def _module(name: str) -> ModuleType:
    return import_module(f"internimage.cli.design.{name}")
