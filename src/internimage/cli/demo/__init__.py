"""``internimage demo``: a page in the browser that shows what a network sees in a picture, and where it looks."""

from internimage.cli.demo.command import main

__all__ = ["main"]
