"""``internimage data``: what a set of pictures holds and what is wrong in it, one file per task; sets as files."""

from internimage.cli.data.command import main

__all__ = ["main"]
