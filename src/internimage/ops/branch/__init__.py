"""The separable branch on a GPU: depth-wise convolution, layer normalisation and activation as one operator."""

from internimage.ops.branch.op import MOST_TAPS, branch, depthwise_branch, why_not
from internimage.ops.branch.reference import Activation, branch_reference, branch_reference_backward

__all__ = [
    "MOST_TAPS",
    "Activation",
    "branch",
    "branch_reference",
    "branch_reference_backward",
    "depthwise_branch",
    "why_not",
]
