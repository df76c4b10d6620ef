"""``internimage design``: one file per question, and the command that chooses between them."""

from internimage.cli.design.command import main

__all__ = ["main"]
