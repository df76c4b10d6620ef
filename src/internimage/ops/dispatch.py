"""How operators meet PyTorch: autocast's dtype, GPUs that Triton can serve, kernels that compilers can see."""

# None of this has types.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch._functorch import config as functorch_config
from torch._library.triton import triton_ops_to_kernels
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.autograd import forward_ad

# Asked once: torch.compile can't trace the question before PyTorch 2.12.
_AUTOCAST_DEVICES = frozenset(
    device for device in ("cpu", "cuda", "xpu", "mps", "hpu") if torch.amp.is_autocast_available(device)
)

# 0: time nothing, launch what is known or estimated. Another value: time everything, whatever the table says.
TUNE_VARIABLE = "INTERNIMAGE_TUNE"
# The oldest GPUs that the kernels were compiled for: tests/ops/test_dcnv3_aot.py.
_OLDEST = (7, 0)


def has_autocast(tensor: Tensor) -> bool:
    """Whether there is an autocast for the tensor's device, on or off."""
    return tensor.device.type in _AUTOCAST_DEVICES


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """What autocast casts this tensor to; None where autocast is off, and for float64, which PyTorch's rules leave.

    torch.library.register_autocast fixes one dtype per device; users choose float16 or bfloat16 per region.
    """
    device = tensor.device.type
    if not has_autocast(tensor) or not torch.is_autocast_enabled(device) or tensor.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def needs_plain_operators(*tensors: Tensor) -> bool:
    """Whether only PyTorch's own operators will do: under torch.func or forward-mode autograd.

    Those transforms would take a registered operator for a constant or refuse it.
    """
    if torch.compiler.is_compiling():
        return False
    # PyTorch has no public question for either.
    if cast(Any, torch)._C._are_functorch_transforms_active():
        return True
    is_dual = cast(Any, forward_ad)._current_level >= 0
    return is_dual and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def architecture(device: torch.device) -> str:
    """The compiler's name of a GPU: ``sm_90``, ``gfx942``."""
    if torch.version.hip:
        return str(cast(Any, torch.cuda).get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def tuning_wish() -> Literal["once", "never", "always"]:
    """Whether configurations of kernels may be timed: those that nobody knows, by default."""
    wish = os.environ.get(TUNE_VARIABLE, "")
    return "once" if not wish else "never" if wish == "0" else "always"


@cache
def why_no_triton(device: torch.device) -> str | None:
    """The reason why Triton kernels can't run on a device, or None."""
    if device.type != "cuda":
        return f"the tensors are on {device.type}"
    if find_spec("triton") is None:
        return "Triton is missing: pip install triton"
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _OLDEST:
        return "Triton needs compute capability {}.{}, this GPU has {}.{}".format(*_OLDEST, *capability)
    return _why_no_driver()


def _why_no_driver() -> str | None:
    """Triton compiles its own way to the driver at first use, which takes a C compiler: slim images have none."""
    from triton.runtime import driver

    try:
        _ = cast(Any, driver).active.utils
    except Exception as error:  # whatever it is, nothing will run
        return f"Triton can't start ({' '.join(str(error).split())}); it needs a C compiler: install gcc, or set CC"
    return None


def is_traced(tensor: Tensor) -> bool:
    """Whether a graph is written down and nothing computed; a launch then belongs in `torch.library.wrap_triton`."""
    return isinstance(tensor, FakeTensor | FunctionalTensor)


def show_kernels(
    name: str,
    launch: Callable[..., Any],
    takes: Callable[[tuple[Any, ...]], bool],
    kernels: Callable[[], Iterable[Any]],
) -> None:
    """Let compilers see an operator's Triton kernels: in graphs traced for a GPU they take the operator's place.

    torch.library.triton_op does the same, but on every device, and imports Triton at once.

    Args:
        name: of the operator, ``"internimage::dcnv3"``.
        launch: what stands in its place; takes the operator's arguments.
        takes: whether the kernels can take these arguments of the operator.
        kernels: gives the ``@triton.jit`` functions inside.
    """

    def trace(mode: Any, op: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # Exported programs keep the operator: they may run elsewhere.
        if not cast(Any, functorch_config).decompose_custom_triton_ops or not takes(args):
            return mode.__torch_dispatch__(op, types, args, kwargs)
        if not all(issubclass(kind, FakeTensor) or kind in (Tensor, FunctionalTensor) for kind in types):
            return NotImplemented
        with mode:
            return launch(*args, **kwargs)

    cast(Any, torch.library).register_torch_dispatch(name, FunctionalTensorMode, trace)
    # Part of the key under which compiled graphs are kept on disk: other kernels, another graph.
    cast(Any, triton_ops_to_kernels)[name] = _Lazy(kernels)


class _Lazy:
    def __init__(self, kernels: Callable[[], Iterable[Any]]) -> None:
        self.kernels = kernels

    def __iter__(self) -> Iterator[Any]:
        yield from self.kernels()
        yield _Launches


class _Launches:
    """To a compiler's cache a kernel like the others; its source stands for how the others are launched."""

    fn = staticmethod(lambda: None)

    class _Source:
        def __get__(self, instance: object, owner: type) -> str:
            return f"# {_sources()} {tuning_wish()}"

    src = _Source()


@cache
def _sources() -> str:
    """A hash of all that decides a launch."""
    folder = Path(__file__).parent
    files = sorted(folder.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
