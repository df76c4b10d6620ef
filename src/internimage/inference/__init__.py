"""An image in, a structure out."""

from internimage.inference.classification import Classifier
from internimage.inference.loading import load_classifier

__all__ = ["Classifier", "load_classifier"]
