"""``internimage visualize``: one file per picture, and the command that chooses between them."""

from internimage.cli.visualize.command import main

__all__ = ["main"]
