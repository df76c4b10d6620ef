"""``internimage design scale``."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace


def parser() -> ArgumentParser:
    """The command's options."""
    return ArgumentParser(prog="internimage design scale", description="scale")


def run(options: Namespace) -> int:
    """Print it; returns the exit status."""
    raise NotImplementedError("internimage design scale is not there yet")
