"""A network as an ONNX file: standard operators only, any batch, height and width."""

# onnxruntime and the exporter have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from internimage.export.network import (
    Agreement,
    Report,
    check,
    check_path,
    compare,
    draft,
    output_names,
    require,
    trace,
)

if TYPE_CHECKING:
    from internimage.export.onnx_operators import Sampling

# The first in which GridSample has its present form and Gelu is an operator.
OPSET = 20
_DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    example: Tensor | None = None,
    half: bool = False,
    sampling: Sampling = "deform_conv",
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Path:
    """Write ``model`` as an ONNX file with open batch, height and width, after a check with onnxruntime.

    DCNv3 becomes standard operators, no custom one. The input is called ``image``, the outputs
    ``logits``, or ``stage1`` to ``stage4``, open sizes ``batch``, ``height``, ``width``. The weights of a network of
    more than 1.5 GB lie in a second file beside the first, ``NAME.onnx.data``.

    Args:
        model: a network in evaluation mode, in float32: classifier, backbone, or your own around them.
        path: ends in ``.onnx``.
        example: images (N, C, H, W) to check the file with, too; needed for a network that is none of ours.
        half: weights and arithmetic, input and outputs in float16; coordinates, modulation and sums stay in float32.
        sampling: what DCNv3 rests on. ``"deform_conv"`` (DeformConv, opset 19) is the faster one: onnxruntime 1.25 or
            newer. ``"grid_sample"`` is for runtimes without it; there, offsets that are NaN are not off the map.
        overwrite: replace a file that is there.
        metadata: JSON values to keep in the file under ``internimage``: class names, how images are prepared.
        report: is told how far onnxruntime is from the network, size by size.

    Raises:
        ValueError: training mode, an example the network can't take, another suffix, or a file that doesn't agree.
        FileExistsError: something is at ``path``.
        ImportError: packages are missing; says which extra has them.
    """
    require("onnx", "onnxscript", "onnxruntime")
    check(model, example)
    path = check_path(path, ".onnx", overwrite)
    program = _convert(copy.deepcopy(model).half() if half else model, example, sampling)
    _tidy(program.model.graph, model)
    program.model.metadata_props["internimage"] = json.dumps(dict(metadata or {}), ensure_ascii=False)
    with draft(path, overwrite) as file:
        program.save(file)
        check_onnx(model, file, example=example, report=report)
    return path


def check_onnx(
    model: nn.Module, path: str | Path, *, example: Tensor | None = None, report: Report | None = None
) -> list[Agreement]:
    """Compare what onnxruntime computes from a file with what the network does, at several sizes and batches.

    Raises:
        ValueError: an output differs; says where, and by how much.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()

    dtype = _DTYPES[image.type]

    def run(image_NCHW: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {image.name: image_NCHW.to(dtype).numpy()})]

    return compare(model, run, Path(path).name, precision=dtype, example=example, report=report)


def _tidy(graph: Any, model: nn.Module) -> None:
    """Names for people in place of the tracer's, and nothing about where and how the file was made."""
    import onnx_ir

    (image,), outputs = graph.inputs, list(graph.outputs)
    image.name = "image"
    for value, name in zip(outputs, output_names(model, len(outputs)), strict=True):
        value.name = name
    names = {str(image.shape[axis]): name for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    symbols = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for node in graph:
        node.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values(), *(each for node in graph for each in node.outputs)):
        value.metadata_props.clear()
        if value.shape is not None:
            sizes = (size if isinstance(size, int) else size.value for size in value.shape)
            # An open size without a name stays so: one name for two sizes would be an error.
            value.shape = onnx_ir.Shape(
                symbols.sub(lambda found: names[found[0]], size) if isinstance(size, str) else size for size in sizes
            )


def _convert(model: nn.Module, example: Tensor | None, sampling: Sampling) -> Any:
    from internimage.export.onnx_operators import translator

    table = {cast(Any, torch.ops).internimage.dcnv3.default: translator(sampling)}
    with warnings.catch_warnings():
        # The exporter's, about its own ways.
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            cast(Any, trace(model, example)),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            custom_translation_table=table,
        )
