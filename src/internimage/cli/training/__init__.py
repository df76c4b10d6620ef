"""``internimage fit | validate | test``."""

from internimage.cli.training.command import main

__all__ = ["main"]
