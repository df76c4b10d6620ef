"""The separable branch on a GPU: depth-wise convolution, layer normalisation and activation as one operator."""

from internimage.ops.branch.op import branch, depthwise_branch, why_not
from internimage.ops.branch.reference import Activation, branch_reference, branch_reference_backward

__all__ = [
    "Activation",
    "branch",
    "branch_reference",
    "branch_reference_backward",
    "depthwise_branch",
    "why_not",
]
