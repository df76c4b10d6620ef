"""The operator at the stages of InternImage-T and B: forward, and forward and backward, in 16 bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.comparison import Agreement, Contender, full_float32, relative_rms
from benchmarks.dcnv3 import Case, Implementation, Inputs, results
from benchmarks.on_gpu.clock import cache_bytes, compulsory_bytes, rotated, rotation_count
from benchmarks.on_gpu.kernels import OURS, OURS_COMPILED, Maker, Work, makers, reference
from benchmarks.on_gpu.measuring import Setup, Trial, detached, release
from benchmarks.timing import Workload
from internimage import InternImageConfig

SIDES = (56, 28, 14, 7)
_POINTS = 9
_WORKS: tuple[Work, ...] = ("softmax", "none")
_WORDS = {"softmax": "softmax and aggregation", "none": "aggregation alone"}
# Relative RMS of output and gradients. Others may keep coordinates or weights in 16 bit; mistakes show as 0.1 or more.
_PEER_LIMITS = (2e-2, 5e-2)

MakersFor = Callable[[Work, bool], dict[str, Maker]]


@dataclass(frozen=True)
class Stage:
    """A case with its place in the table of targets."""

    variant: str
    number: int
    case: Case

    @property
    def moved(self) -> tuple[int, int]:
        """Compulsory bytes: forward, forward and backward."""
        case = self.case
        positions, itemsize = case.batch * case.height * case.width, case.dtype.itemsize
        forward, both = (
            compulsory_bytes(positions, case.groups, case.depth, _POINTS, itemsize, backward=backward)
            for backward in (False, True)
        )
        return forward, both


def stages(setup: Setup) -> list[Stage]:
    """The four stages of each variant at 224 pixels; one small map in a dry run."""
    if setup.on_cpu:
        cases = [Case("a small map", 1, 10, 9, 2, 8, dtype, setup.device) for dtype in setup.dtypes]
        return [Stage("t", 1, case) for case in cases]
    batch = 4 if setup.quick else 64
    found: list[Stage] = []
    for dtype in setup.dtypes:
        for variant in setup.variants:
            config = InternImageConfig.from_variant(variant)
            depth = config.channels // config.groups[0]
            for number, (side, groups) in enumerate(zip(SIDES, config.groups, strict=True), start=1):
                name = f"{variant.upper()}'s stage {number}"
                case = Case(name, batch, side, side, groups, depth, dtype, setup.device)
                found.append(Stage(variant, number, case))
    return found


def trials(setup: Setup, makers_for: MakersFor | None = None) -> Iterator[Trial]:
    """Four comparisons a stage: with the softmax and without, one pass and both."""
    for stage in stages(setup):
        value, offset, logits = stage.case.inputs()
        for work in _WORKS:
            # Compiled, the operator is the same kernel: one stage shows what the wrapper costs.
            compiled = not setup.on_cpu and (stage.variant, stage.number, work) == ("t", 1, "softmax")
            found = makers_for(work, compiled) if makers_for else makers(work, setup.peers, compiled=compiled)
            inputs = value, offset, logits if work == "softmax" else logits.softmax(-1)
            yield from _stage_trials(stage, work, inputs, found, setup)
            release()


def _stage_trials(stage: Stage, work: Work, inputs: Inputs, found: dict[str, Maker], setup: Setup) -> Iterator[Trial]:
    forward, both = (_empty_trial(stage, work, backward) for backward in (False, True))
    with full_float32():
        expected = results(reference(work), tuple(tensor.float() for tensor in inputs))
    count = rotation_count(stage.moved[0], cache_bytes(setup.device))
    for name, maker in found.items():
        limits = stage.case.limits() if name in (OURS, OURS_COMPILED) else peer_limits(stage.case.dtype)
        with forward.attempt(name):
            implementation = maker()
            forward.agreements.append(_check_output(name, implementation, inputs, expected, limits[0]))
            forward.contenders.append(Contender(name, workload(implementation, inputs, count, backward=False)))
        if forward.skipped and forward.skipped[-1][0] == name:
            both.skipped.append(forward.skipped[-1])
            continue
        with both.attempt(name):
            both.agreements += _check_gradients(name, implementation, inputs, expected, limits)
            both.contenders.append(Contender(name, workload(implementation, inputs, count, backward=True)))
    del expected
    yield forward
    forward.contenders.clear()
    yield both


def _empty_trial(stage: Stage, work: Work, backward: bool) -> Trial:
    what = f"{_WORDS[work]}: {stage.case.title(backward)}"
    key = {
        "suite": "operator",
        "variant": stage.variant,
        "stage": str(stage.number),
        "dtype": str(stage.case.dtype).removeprefix("torch."),
        "work": work,
        "passes": "both" if backward else "forward",
    }
    return Trial(what, key, OURS, moved_bytes=stage.moved[backward], queued=True)


def peer_limits(dtype: torch.dtype) -> tuple[float, float]:
    """Largest relative RMS of another implementation's output and gradients."""
    return (1e-4, 1e-3) if dtype == torch.float32 else _PEER_LIMITS


def _check_output(
    name: str, implementation: Implementation, inputs: Inputs, expected: dict[str, Tensor], limit: float
) -> Agreement:
    with torch.no_grad():
        output = implementation.to_ours(
            implementation.run(*implementation.from_ours(*detached(inputs))), inputs[0].shape
        )
    error = relative_rms(output, expected["output"])
    return Agreement(name, "output against the reference in float32", error, limit)


def _check_gradients(
    name: str,
    implementation: Implementation,
    inputs: Inputs,
    expected: dict[str, Tensor],
    limits: tuple[float, float],
) -> list[Agreement]:
    found = results(implementation, inputs)
    return [
        Agreement(
            name,
            f"{what} against the reference in float32",
            relative_rms(tensor, expected[what]),
            limits[0] if what == "output" else limits[1],
        )
        for what, tensor in found.items()
    ]


def workload(implementation: Implementation, inputs: Inputs, count: int, *, backward: bool) -> Workload:
    """What is timed: each time on the next of ``count`` sets of the same numbers, in the implementation's layout."""
    with torch.no_grad():
        own = implementation.from_ours(*inputs)
    sets = [detached(own) for _ in range(count)]
    if not backward:

        def forward(*tensors: Tensor) -> Tensor:
            with torch.no_grad():
                return implementation.run(*tensors)

        return rotated(forward, sets)
    leaves = [tuple(tensor.requires_grad_() for tensor in tensors) for tensors in sets]
    grads = [torch.ones_like(implementation.run(*leaves[0])) for _ in range(count)]

    def both(*tensors: Tensor) -> tuple[Tensor, ...]:
        *own_inputs, grad = tensors
        return torch.autograd.grad(implementation.run(*own_inputs), own_inputs, grad)

    return rotated(both, [(*tensors, grad) for tensors, grad in zip(leaves, grads, strict=True)])
