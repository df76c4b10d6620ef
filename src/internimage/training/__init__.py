"""What learns, in which groups, and how the learning rate moves, in plain torch."""

from internimage.training.freezing import first_stages, freeze
from internimage.training.param_groups import param_groups
from internimage.training.schedules import WarmupCosine, WarmupPower, WarmupSteps

__all__ = ["WarmupCosine", "WarmupPower", "WarmupSteps", "first_stages", "freeze", "param_groups"]
