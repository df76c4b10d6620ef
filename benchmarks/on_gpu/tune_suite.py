"""Candidate launch configurations of our kernels, timed: rows for the table of tuned configurations."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod
from typing import Any, Literal, Protocol

import torch

from benchmarks.comparison import Agreement, Contender, full_float32, relative_rms
from benchmarks.dcnv3 import Case, results
from benchmarks.on_gpu.clock import cache_bytes, rotation_count
from benchmarks.on_gpu.extensions import Missing
from benchmarks.on_gpu.kernels import OURS, makers, reference
from benchmarks.on_gpu.measuring import Finding, Setup, Trial, release, say_once
from benchmarks.on_gpu.operator_suite import SIDES, Stage, stages, workload
from benchmarks.timing import Workload
from internimage import InternImageConfig
from internimage.ops import dispatch

Kind = Literal["forward", "backward"]
_MODULE = "internimage.ops.dcnv3.triton_tuning"
_POINTS = 9


class Launch(Protocol):
    """What tuning needs of the module that holds our configurations."""

    def shape(self, kind: Kind, itemsize: int, depth: int, points: int, rows: int) -> Any:
        """What the best configuration depends on."""
        ...

    def candidates(self, shape: Any) -> Sequence[Any]:
        """Configurations worth a try."""
        ...

    def use_config(self, kind: Kind, config: Any) -> AbstractContextManager[Any]:
        """Force one configuration."""
        ...

    def entry(self, config: Any) -> str:
        """The configuration as our table writes it."""
        ...


class TritonLaunch:
    """`Launch` for our Triton kernels.

    Raises:
        Missing: this checkout has no kernels that can be tuned, with a sentence.
    """

    def __init__(self) -> None:
        try:
            self._module: Any = importlib.import_module(_MODULE)
        except ImportError as error:
            raise Missing(f"there is nothing to tune: {_MODULE} can't be imported ({error})") from error
        for name in ("ShapeClass", "are_few", "candidates", "use_config"):
            if not hasattr(self._module, name):
                raise Missing(f"there is nothing to tune: {_MODULE} has no {name}")

    def shape(self, kind: Kind, itemsize: int, depth: int, points: int, rows: int) -> Any:
        """See `Launch`."""
        return self._module.ShapeClass(kind, itemsize, depth, points, self._module.are_few(rows))

    def candidates(self, shape: Any) -> Sequence[Any]:
        """See `Launch`."""
        return self._module.candidates(shape)

    def use_config(self, kind: Kind, config: Any) -> AbstractContextManager[Any]:
        """See `Launch`."""
        return self._module.use_config(kind, config)

    def entry(self, config: Any) -> str:
        """See `Launch`."""
        return f"Config({config.threads_per_row}, {config.num_warps}, {config.chunk})"


def trials(setup: Setup, launch: Launch | None = None) -> Iterator[Trial]:
    """One comparison for each stage, kind and dtype; its contenders are the candidates."""
    if launch is None:
        try:
            launch = TritonLaunch()
        except Missing as reason:
            yield Trial("Launch configurations", {"suite": "tune"}, skipped=[("tuning", str(reason))])
            say_once(str(reason))
            return
    for stage in [*stages(setup), *_single_images(setup), *_wide_stages(setup)]:
        for kind in ("forward", "backward"):
            yield _tune_trial(stage, kind, launch, setup)
            release()


def _single_images(setup: Setup) -> list[Stage]:
    """The first variant's stages at batch 1, which do not fill a GPU."""
    first = [stage for stage in stages(setup) if stage.variant == setup.variants[0]]
    cases = (replace(stage.case, name=f"{stage.case.name}, one image", batch=1) for stage in first)
    found = [Stage(stage.variant, stage.number, case) for stage, case in zip(first, cases, strict=True)]
    return [] if setup.on_cpu else found


def _wide_stages(setup: Setup) -> list[Stage]:
    """H and G have groups of 32 channels: H's stages on small batches."""
    if setup.on_cpu:
        return []
    groups = InternImageConfig.from_variant("h").groups
    return [
        Stage(
            "h",
            number,
            Case(f"H's stage {number}", 4 if setup.quick else 16, side, side, count, 32, dtype, setup.device),
        )
        for dtype in setup.dtypes
        for number, (side, count) in enumerate(zip(SIDES, groups, strict=True), start=1)
    ]


def _tune_trial(stage: Stage, kind: Kind, launch: Launch, setup: Setup) -> Trial:
    case = stage.case
    itemsize = case.dtype.itemsize
    shape = launch.shape(kind, itemsize, case.depth, _POINTS, case.batch * case.height * case.width * case.groups)
    key = {
        "suite": "tune",
        "kind": kind,
        "itemsize": str(itemsize),
        "group_width": str(case.depth),
        "points": str(_POINTS),
        "few_rows": str(getattr(shape, "few", False)),
        "arch": architecture(setup.device),
    }
    trial = Trial(f"Configurations, {case.title(kind == 'backward')}", key, queued=True)
    inputs = case.inputs()
    with full_float32():
        expected = results(reference("softmax"), tuple(tensor.float() for tensor in inputs))
    implementation = makers("softmax", setup.peers)[OURS]()
    count = rotation_count(stage.moved[0], cache_bytes(setup.device))
    inner = workload(implementation, inputs, count, backward=kind == "backward")
    for config in launch.candidates(shape):
        name = launch.entry(config)
        with trial.attempt(name):
            with launch.use_config(kind, config):
                found = results(implementation, inputs)
            error = max(relative_rms(tensor, expected[what]) for what, tensor in found.items())
            trial.agreements.append(Agreement(name, "output and gradients", error, max(case.limits())))
            trial.contenders.append(Contender(name, _forced(launch, kind, config, inner)))
    return trial


def _forced(launch: Launch, kind: Kind, config: Any, inner: Workload) -> Workload:
    def call() -> object:
        with launch.use_config(kind, config):
            return inner()

    return call


def architecture(device: torch.device) -> str:
    """The name of the GPU's instruction set: sm_90, gfx942, or cpu.

    >>> architecture(torch.device("cpu"))
    'cpu'
    """
    return dispatch.architecture(device) if device.type == "cuda" else device.type


def summarize(findings: Sequence[Finding]) -> list[str]:
    """The best configuration of each class, by the geometric mean of its times over each shape's best time."""
    slowdowns: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for finding in findings:
        valid = [row for row in finding.rows if row.refused is None]
        if finding.key.get("suite") != "tune" or not valid:
            continue
        best = min(row.timing.median_ms for row in valid)
        group = tuple(finding.key[name] for name in ("arch", "kind", "itemsize", "group_width", "few_rows", "points"))
        for row in valid:
            slowdowns[group][row.name].append(row.timing.median_ms / best)
    if not slowdowns:
        return []
    lines = [
        "| architecture | kind | itemsize | group width | few rows | points | best configuration | over the best |",
        "| --- | --- | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for group, configs in slowdowns.items():
        shapes = max(len(ratios) for ratios in configs.values())
        means = {name: _mean(ratios) for name, ratios in configs.items() if len(ratios) == shapes}
        best_name = min(means, key=lambda name: means[name])
        lines.append(f"| {' | '.join(group)} | `{best_name}` | {100 * (means[best_name] - 1):.1f} % |")
    return lines


def _mean(ratios: Sequence[float]) -> float:
    return prod(ratios) ** (1 / len(ratios))
