"""How parameters are grouped and how the learning rate moves, in plain torch."""

from internimage.training.param_groups import param_groups
from internimage.training.schedules import WarmupCosine, WarmupPower, WarmupSteps

__all__ = ["WarmupCosine", "WarmupPower", "WarmupSteps", "param_groups"]
