"""``internimage predict``: one file per task, and the command that chooses between them by the weights."""

from internimage.cli.predict.command import main

__all__ = ["main"]
