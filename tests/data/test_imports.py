"""What reading and preparing an image may import."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
from internimage.data import SAMPLE_PREPROCESS, SampleDataset, read_image, to_tensor
SampleDataset("test", transform=lambda image: to_tensor(image, SAMPLE_PREPROCESS))[0]
to_tensor(read_image(np.zeros((9, 9), np.uint8), in_chans=1), SAMPLE_PREPROCESS)
print(*sorted({"timm", "torchvision", "lightning", "matplotlib", "transformers"} & set(sys.modules)))
"""


def test_reading_an_image_needs_the_core_dependencies_only():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
