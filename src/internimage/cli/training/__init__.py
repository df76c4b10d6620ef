"""``internimage fit | validate | test``."""

from __future__ import annotations

from collections.abc import Sequence


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one of them; returns the exit status. Lightning is not loaded before."""
    from internimage.cli.training.command import main as run

    return run(command, arguments)


__all__ = ["main"]
