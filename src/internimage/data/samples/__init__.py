"""The real images that ship with the package; see README.md beside this file."""

from internimage.data.samples.fashion_mnist import (
    SAMPLE_LABELS,
    SAMPLE_PREPROCESS,
    export_samples,
    load_sample_arrays,
)
from internimage.data.samples.photo import sample_photo

__all__ = ["SAMPLE_LABELS", "SAMPLE_PREPROCESS", "export_samples", "load_sample_arrays", "sample_photo"]
