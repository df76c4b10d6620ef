"""A network as an OpenVINO model: straight from the exported program, any batch, height and width."""

# OpenVINO is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from internimage.export.network import Report, check, check_path, compare, draft, output_names, require, trace

# Left to itself, the CPU plugin computes in bfloat16 where the processor can.
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
# In 8 bits the check is on calibration images; as many say enough.
_CHECKED = 8


def export_openvino(
    model: nn.Module,
    path: str | Path,
    *,
    example: Tensor | None = None,
    half: bool = False,
    calibration: Sequence[Tensor] | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Path:
    """Write ``model`` as an OpenVINO model, ``NAME.xml`` and ``NAME.bin``, after a check in float32.

    Input, outputs and open sizes as `export_onnx`; DCNv3 becomes OpenVINO's DeformableConvolution. At run time the
    CPU plugin chooses bfloat16 where the processor can: ``{"INFERENCE_PRECISION_HINT": "f32"}`` keeps float32.

    Args:
        model: a network in evaluation mode, in float32: classifier, backbone, or your own around them.
        path: ends in ``.xml``.
        example: images (N, C, H, W) to check the file with, too; needed for a network that is none of ours.
        half: keep the weights in float16; the arithmetic does not change.
        calibration: prepared images, all (1, C, H, W) of one size, some hundred that stand for what the network will
            see: from their ranges NNCF brings weights and activations of convolutions and linear layers to int8.
            Sampling and normalisation stay in floats. The check is then on the first of these images, and allows 0.3.
        overwrite: replace files that are there.
        metadata: JSON values to keep in the file under ``internimage``: class names, how images are prepared.
        report: is told how far OpenVINO is from the network, size by size.

    Raises:
        ValueError: training mode, an example the network can't take, another suffix, ``half`` and ``calibration``
            together, or a file that doesn't agree.
        FileExistsError: something is at ``path``.
        ImportError: OpenVINO or NNCF is missing; says which extra has it.
    """
    require("openvino")
    import openvino

    check(model, example)
    path = check_path(path, ".xml", overwrite)
    if calibration is not None:
        require("nncf", extra="int8")
        _check_calibration(model, calibration, half)
    converted = _convert(model, example)
    if calibration is not None:
        converted = _quantize(converted, calibration)
    names = output_names(model, len(converted.outputs))
    for port, name in zip([*converted.inputs, *converted.outputs], ["image", *names], strict=True):
        port.get_tensor().set_names({name})
    converted.set_rt_info(json.dumps(dict(metadata or {}), ensure_ascii=False), "internimage")
    with draft(path, overwrite) as file:
        openvino.save_model(converted, file, compress_to_fp16=half)
        compiled = shared_core().compile_model(file, "CPU", _FLOAT32)

        def run(image_NCHW: Tensor) -> list[Tensor]:
            return [torch.from_numpy(each.copy()) for each in compiled(image_NCHW.numpy()).values()]

        precision = torch.int8 if calibration is not None else torch.float16 if half else torch.float32
        images = None if calibration is None else _calibrated_sizes(calibration)
        compare(model, run, path.name, precision=precision, example=example, images=images, report=report)
    return path


@cache
def shared_core() -> Any:
    """OpenVINO's entry, one for the process.

    Each that compiles for the CPU puts a stack for signal handlers in place and takes it away when it is destroyed; of
    two whose lives overlap (2026.4) one may leave a stack that is freed, and the next SIGCHLD of a data loader's worker
    ends the process.
    """
    import openvino

    return openvino.Core()


def _check_calibration(model: nn.Module, images: Sequence[Tensor], half: bool) -> None:
    if half:
        raise ValueError("half and calibration exclude each other: weights are in float16 or in int8")
    if not images:
        raise ValueError("calibration holds no images; give some hundred of those that the network will see")
    check(model, images[0])
    for place, image_NCHW in enumerate(images):
        if (image_NCHW.dtype, image_NCHW.shape) != (images[0].dtype, images[0].shape):
            raise ValueError(
                f"calibration needs images of one kind; number 0 is {images[0].dtype} of {tuple(images[0].shape)}, "
                f"number {place} {image_NCHW.dtype} of {tuple(image_NCHW.shape)}"
            )


def _quantize(converted: Any, images: Sequence[Tensor]) -> Any:
    import nncf

    dataset = nncf.Dataset(images, lambda image_NCHW: image_NCHW.numpy())
    # Not NNCF's rules for transformers: docs/decisions/0012-deformable-convolution-in-exports.md.
    return nncf.quantize(converted, dataset, subset_size=len(images))


def _calibrated_sizes(images: Sequence[Tensor]) -> list[Tensor]:
    """The first images, and two of them together in another size: what was calibrated on one must take all."""
    first = images[:_CHECKED]
    height, width = first[0].shape[-2:]
    larger = [nn.functional.interpolate(each, (height * 5 // 4, width * 3 // 2)) for each in (first[0], first[-1])]
    return [*first, torch.cat(larger)]


def _convert(model: nn.Module, example: Tensor | None) -> Any:
    import openvino
    from openvino.frontend.pytorch import ConversionExtension

    from internimage.export.openvino_operators import converter

    program = trace(model, example)
    dcnv3 = cast(Any, torch.ops).internimage.dcnv3.default
    sizes = [tuple(node.args[0].meta["val"].shape[-2:]) for node in program.graph.nodes if node.target is dcnv3]
    with warnings.catch_warnings():
        # The converter's, about its own ways.
        warnings.simplefilter("ignore")
        extension = ConversionExtension("internimage.dcnv3.default", converter(sizes))
        return openvino.convert_model(program, extension=[extension])
