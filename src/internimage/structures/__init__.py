"""Values that travel between rooms: label names, preprocessing, and what a network says of an image."""

from internimage.structures.classification import Classification, Preprocess
from internimage.structures.comparison import SearchedDesign, TrainedForm
from internimage.structures.design import DesignCost
from internimage.structures.detection import Detections, Framing, MergeRule, Merging, Placement, View, Views
from internimage.structures.inspection import ClassActivation, ReceptiveField
from internimage.structures.labels import IMAGENET_MEAN, IMAGENET_STD, LabelMap
from internimage.structures.measures import Measures
from internimage.structures.robustness import Robustness
from internimage.structures.sampling import BlockSampling, SamplingPoints, SamplingTrace
from internimage.structures.segmentation import IGNORED, MOST_CLASSES, Colour, SegmentationMap, Viewing

__all__ = [
    "IGNORED",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MOST_CLASSES",
    "BlockSampling",
    "ClassActivation",
    "Classification",
    "Colour",
    "DesignCost",
    "Detections",
    "Framing",
    "LabelMap",
    "Measures",
    "MergeRule",
    "Merging",
    "Placement",
    "Preprocess",
    "ReceptiveField",
    "Robustness",
    "SamplingPoints",
    "SamplingTrace",
    "SearchedDesign",
    "SegmentationMap",
    "TrainedForm",
    "View",
    "Viewing",
    "Views",
]
