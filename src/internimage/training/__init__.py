"""How parameters are grouped and how the learning rate moves, in plain torch."""

from internimage.training.param_groups import param_groups
from internimage.training.schedules import WarmupCosine, WarmupSteps

__all__ = ["WarmupCosine", "WarmupSteps", "param_groups"]
