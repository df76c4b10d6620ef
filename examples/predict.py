"""Name what is in a picture: `python examples/predict.py [PICTURE ...]`; by default the photograph in the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import internimage
from internimage.data import sample_photo


def main(pictures: Sequence[str]) -> None:
    # The weights in the package know ten classes and see 32 x 32 pixels. Any other source works the same:
    # "runs/flowers", "internimage_t.in1k_224", an official .pth.
    classifier = internimage.Classifier(device="cpu")
    for result in classifier(pictures):
        print(result.source)
        for name, probability in result.top(3):
            print(f"  {name:<10} {probability:5.1%} {'#' * round(30 * probability)}")


if __name__ == "__main__":
    main(sys.argv[1:] or [str(sample_photo())])
