"""DCNv3 on a GPU by the Triton kernels: when they can run, and on what."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

# What the kernels were compiled for: see tests/ops/test_dcnv3_aot.py.
_OLDEST = (7, 0)


def why_not(value_NHWGD: Tensor) -> str | None:
    """The reason why the kernels can't run on this value, or None."""
    if value_NHWGD.device.type != "cuda":
        return f"the tensors are on {value_NHWGD.device.type}"
    if value_NHWGD.dtype == torch.float64:
        return "the Triton kernels compute in float32, which would lose what float64 is for"
    return _why_not_on(value_NHWGD.device)


def architecture(device: torch.device) -> str:
    """The compiler's name of a GPU: ``sm_90``, ``gfx942``."""
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def _why_not_on(device: torch.device) -> str | None:
    if find_spec("triton") is None:
        return "Triton is missing: pip install triton"
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _OLDEST:
        return f"Triton needs compute capability {'.'.join(map(str, _OLDEST))}; this GPU has {capability[0]}.{capability[1]}"
    return None
