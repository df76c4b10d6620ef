"""A photograph for first trials: somewhere to look where no other image is at hand."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def sample_photo() -> Path:
    """The file of a cat's portrait, 451 x 300 pixels, JPEG.

    Source: Chelsea by Stefan van der Walt, CC0, from scikit-image's sample data.

    >>> sample_photo().name
    'cat.jpg'
    """
    return Path(str(resources.files("internimage.data.samples").joinpath("cat.jpg")))
