"""T in other runtimes on a CPU, beside the official network: one image, one interleaved run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.comparison import Agreement, Comparison, Contender, Result, Settings, relative_rms
from benchmarks.models import AUTOCAST_LIMIT, LIMIT, predict
from benchmarks.networks import build_networks, line_up, random_images
from benchmarks.official import OFFICIAL_NAME
from benchmarks.timing import Workload
from internimage.export import export_onnx, export_openvino
from internimage.export.openvino import shared_core

OURS = "internimage"
DEFORM_CONV, GRID_SAMPLE = "onnxruntime, DeformConv", "onnxruntime, GridSample"
OPENVINO, OPENVINO_OWN, OPENVINO_INT8 = "OpenVINO, float32", "OpenVINO, its own choice", "OpenVINO, int8"
# Random weights in 8 bits; `benchmarks.precision` measures what they cost a trained network.
_INT8_LIMIT = 0.3
# Libraries keep their threads spinning for a while after a call; the next one's would find no core.
_REST_S = 0.05
_TARGETS = {DEFORM_CONV: 0.75, GRID_SAMPLE: 0.75, OPENVINO: 0.55}
_CALIBRATION = 16


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """The official network first if there is a checkout, then ours, then ours in other runtimes; nothing on a GPU."""
    if settings.device.type != "cpu":
        return
    line = line_up(settings)
    networks = {name: network.eval() for name, network in build_networks(line.specs[:2], settings.device).items()}
    ours = networks[line.specs[0].name]
    images = random_images(1, 3, line.size, settings.device)
    calls: dict[str, Workload] = {}
    if OFFICIAL_NAME in networks:
        calls[OFFICIAL_NAME] = partial(predict, networks[OFFICIAL_NAME], images, False)
    calls[OURS] = partial(predict, ours, images, False)
    skipped = [(name, reason) for name, reason in line.skipped if name == OFFICIAL_NAME]
    with tempfile.TemporaryDirectory() as folder:
        for package, export in (("onnxruntime", _in_onnxruntime), ("openvino", _in_openvino)):
            if find_spec(package) is None:
                skipped.append((package, "not installed"))
            else:
                calls |= export(ours, images, settings, Path(folder))
        expected = cast(Tensor, calls[OURS]())
        checks = [
            Agreement(name, "logits against ours", relative_rms(torch.as_tensor(call()), expected), _limit(name))
            for name, call in calls.items()
            if name != OURS
        ]
        contenders = tuple(Contender(name, call) for name, call in calls.items())
        title = f"{line.specs[0].model} as a file, batch 1, {line.size} x {line.size}, CPU"
        yield Comparison(title, contenders, tuple(checks), tuple(skipped), rest_s=_REST_S)


def summarize(results: Sequence[Result]) -> list[str]:
    """The targets: times as long as the official network, median of the rounds."""
    lines: list[str] = []
    for row in (row for result in results if result.rows[0].name == OFFICIAL_NAME for row in result.rows):
        if row.name in _TARGETS and row.ratio is not None:
            verdict = "met" if row.ratio.median <= _TARGETS[row.name] else "missed"
            lines.append(
                f"- {row.name}: {row.ratio.median:.2f} of the official network's time, "
                f"target {_TARGETS[row.name]}: {verdict}."
            )
    return lines or ["- No targets without the official network (--official PATH)."]


def _limit(name: str) -> float:
    return {OPENVINO_OWN: AUTOCAST_LIMIT, OPENVINO_INT8: _INT8_LIMIT}.get(name, LIMIT)


def _in_onnxruntime(model: nn.Module, images: Tensor, settings: Settings, folder: Path) -> dict[str, Workload]:
    import onnxruntime

    options = cast(Any, onnxruntime).SessionOptions()
    options.intra_op_num_threads = settings.threads
    calls: dict[str, Workload] = {}
    for name, sampling in ((DEFORM_CONV, "deform_conv"), (GRID_SAMPLE, "grid_sample")):
        path = export_onnx(model, folder / f"{sampling}.onnx", sampling=sampling)
        session = cast(Any, onnxruntime).InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {"image": images.numpy()}
        calls[name] = lambda session=session, feed=feed: session.run(None, feed)[0]
    return calls


def _in_openvino(model: nn.Module, images: Tensor, settings: Settings, folder: Path) -> dict[str, Workload]:
    threads = {"INFERENCE_NUM_THREADS": settings.threads}
    float32 = threads | {"INFERENCE_PRECISION_HINT": "f32"}
    path = export_openvino(model, folder / "network.xml")
    plans: dict[str, tuple[Path, dict[str, Any]]] = {OPENVINO: (path, float32), OPENVINO_OWN: (path, threads)}
    if find_spec("nncf") is not None:
        generator = torch.Generator().manual_seed(2)
        calibration = [torch.randn(images.shape, generator=generator) for _ in range(_CALIBRATION)]
        plans[OPENVINO_INT8] = (export_openvino(model, folder / "int8.xml", calibration=calibration), float32)
    calls: dict[str, Workload] = {}
    for name, (file, config) in plans.items():
        request = shared_core().compile_model(file, "CPU", config).create_infer_request()
        calls[name] = partial(_infer, request, images.numpy())
    return calls


def _infer(request: Any, image_NCHW: Any) -> Any:
    request.infer({"image": image_NCHW})
    # A view of memory that the next call overwrites.
    return request.get_output_tensor(0).data.copy()
