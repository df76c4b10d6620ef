"""``internimage design space``."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace


def parser() -> ArgumentParser:
    """The command's options."""
    return ArgumentParser(prog="internimage design space", description="space")


def run(options: Namespace) -> int:
    """Print it; returns the exit status."""
    raise NotImplementedError("internimage design space is not there yet")
