"""``internimage doctor``: what is here, what runs, and why."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from jsonargparse import ArgumentParser

import internimage
from internimage.model.checkpoints.hub import FOLDER_VARIABLE, weights_folder
from internimage.ops.dcnv3 import cpu, dcnv3, dcnv3_reference, explain_dcnv3
from internimage.ops.dcnv3.geometry import DCNv3Geometry

_OPTIONAL = {
    "train": ("lightning", "torchmetrics", "timm", "torchvision", "tensorboard", "matplotlib"),
}


def main(arguments: Sequence[str]) -> int:
    """Print the findings; 1 if something that should run does not."""
    parser = ArgumentParser(prog="internimage doctor", description="Say what runs on this machine, and why.")
    parser.parse_args(list(arguments))
    print(f"internimage {internimage.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for extra, packages in _OPTIONAL.items():
        missing = [name for name in packages if find_spec(name) is None]
        found = ", ".join(f"{name} {_version(name)}" for name in packages if name not in missing)
        print(f"[{extra}] {found or 'nothing'}")
        if missing:
            print(f"  missing: {', '.join(missing)}; pip install 'internimage-torch[{extra}]'")
    print(f"weights placed by hand: {weights_folder()} (${FOLDER_VARIABLE}); downloads: {HF_HUB_CACHE}")
    healthy = [_check(device) for device in _devices()]
    return 0 if all(healthy) else 1


def _devices() -> list[torch.device]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return [torch.device("cpu"), *([accelerator] if accelerator else [])]


def _check(device: torch.device) -> bool:
    """Run forward and backward in each dtype against the reference in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 6, 5, 2, 8), (1, 6, 5, 2, 9, 2), (1, 6, 5, 2, 9))
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    geometry = DCNv3Geometry.make()
    healthy = True
    value = inputs[0].float().to(device)
    print(f"\n{explain_dcnv3(value)}")
    if cpu.why_not(value) is None:
        print(f"  C++ kernel: {cpu.describe()}")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rounded = [tensor.to(dtype) for tensor in inputs]
        value, offset, mask = (tensor.double() for tensor in rounded)
        exact = dcnv3_reference(value, offset, mask, geometry, "softmax")
        leaves = [tensor.to(device).requires_grad_() for tensor in rounded]
        output = dcnv3(leaves[0], leaves[1], leaves[2], normalize="softmax")
        output.sum().backward()
        error = float((output.detach().cpu().double() - exact).norm() / exact.norm())
        right = error < 4 * torch.finfo(dtype).eps and all(
            leaf.grad is not None and bool(leaf.grad.isfinite().all()) for leaf in leaves
        )
        name = str(dtype).removeprefix("torch.")
        print(f"  {name:<9} {'right' if right else 'WRONG'} (relative error {error:.1e} against float64)")
        healthy = healthy and right
    return healthy


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"
