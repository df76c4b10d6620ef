"""A network as PyTorch's own files: an exported program, or a package compiled ahead of time."""

# Both exporters are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from internimage.export.network import Report, Runtime, as_list, check, check_path, compare, draft, trace


def export_program(
    model: nn.Module,
    path: str | Path,
    *,
    example: Tensor | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write ``model`` as a ``torch.export`` program with open batch, height and width, after a check.

    DCNv3 stays one operator: ``import internimage.ops.dcnv3`` before ``torch.export.load(path).module()``, and the
    kernel of the machine runs it. Images of at least 33 x 33 pixels.

    Args:
        model: a network in evaluation mode, in float32: classifier, backbone, or your own around them.
        path: ends in ``.pt2``.
        example: images (N, C, H, W) to check the file with, too; needed for a network that is none of ours.
        overwrite: replace a file that is there.
        report: is told how far the loaded file is from the network, size by size.

    Raises:
        ValueError: training mode, an example the network can't take, another suffix, or a file that doesn't agree.
        FileExistsError: something is at ``path``.
    """
    check(model, example)
    path = check_path(path, ".pt2", overwrite)
    with draft(path, overwrite) as file:
        torch.export.save(trace(model, example), file)
        loaded = torch.export.load(file).module()
        compare(model, _runs(loaded, model), path.name, example=example, report=report)
    return path


def export_package(
    model: nn.Module,
    path: str | Path,
    *,
    example: Tensor | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write ``model`` compiled ahead of time by AOTInductor, for its device; takes minutes, and a C++ compiler.

    ``import internimage.ops.dcnv3`` before ``torch._inductor.aoti_load_package(path)``. Arguments and errors as
    `export_program`.
    """
    check(model, example)
    path = check_path(path, ".pt2", overwrite)
    inductor = cast(Any, torch)._inductor
    with draft(path, overwrite) as file, warnings.catch_warnings():
        # The compiler's, about its own ways.
        warnings.simplefilter("ignore")
        inductor.aoti_compile_and_package(trace(model, example), package_path=str(file))
        loaded = inductor.aoti_load_package(str(file))
        compare(model, _runs(loaded, model), path.name, example=example, report=report)
    return path


def _runs(loaded: Any, model: nn.Module) -> Runtime:
    device = next(model.parameters()).device
    return lambda image_NCHW: as_list(loaded(image_NCHW.to(device)))
