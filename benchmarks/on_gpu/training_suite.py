"""Training: a step of InternImage-T beside the others, and the largest batch of InternImage-H on an 80 GB card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.comparison import Agreement, Contender, full_float32, relative_rms
from benchmarks.memory import Memory
from benchmarks.networks import random_images, scatter_sampling
from benchmarks.on_gpu.measuring import (
    LONG_BUDGET_S,
    Setup,
    Trial,
    build_measured,
    check_device,
    is_out_of_memory,
    release,
)
from benchmarks.on_gpu.network_suite import (
    AS_WRITTEN,
    COMPILED,
    COMPILED_TOO,
    CONVNEXT,
    CONVNEXT_COMPILED,
    EAGER,
    FLASH,
    OFFICIAL,
    build_networks,
    compiled_for,
    placed,
)
from benchmarks.timing import Workload
from internimage import create_model

EAGER_HALF = "internimage, eager, float16"
HUGE = "internimage_h with checkpointing"
# Batch normalisation over the last map needs more than two images to be well-conditioned.
_CHECKED_IMAGES = 8
# Relative RMS of all gradients together: the same in float32 on two devices; 16-bit autocast against float32.
_GRADIENT_LIMIT, _CAST_LIMIT = 1e-3, 2e-1
# An 80 GB card gives about 79 GiB; besides PyTorch's tensors, the context and libraries need some of it.
_CARD_BYTES, _CONTEXT_BYTES = 78 * 2**30, 2**30

Batch = tuple[Tensor, Tensor]


def trials(setup: Setup) -> Iterator[Trial]:
    """InternImage-T in bfloat16; peers whose kernel has no bfloat16 take float16 with gradient scaling."""
    batch, size = (2, 64) if setup.on_cpu else (16, 224) if setup.quick else (128, 224)
    trial = Trial(
        f"InternImage-T training step, batch {batch}, {size} x {size}, bfloat16 autocast, AdamW",
        {"suite": "training", "variant": "t", "dtype": "bfloat16", "mode": AS_WRITTEN},
        EAGER,
        images_per_call=batch,
        budget_s=LONG_BUDGET_S,
    )
    networks = build_networks(trial, "t", setup)
    images = random_images(batch, 3, size, torch.device("cpu"))
    targets = torch.arange(batch) % 1000
    few = (images[:_CHECKED_IMAGES], targets[:_CHECKED_IMAGES])
    ours = networks.ours.train()
    expected = gradients(ours, *few, None)
    with trial.attempt("check in float32"), full_float32():
        found = gradients(placed(ours, few[0].to(setup.device), channels_last=True), *few, None)
        what = "gradients in float32 against the same weights on the CPU"
        trial.agreements.append(Agreement(EAGER, what, relative_rms(found, expected), _GRADIENT_LIMIT))
    bfloat16 = torch.bfloat16
    batch_on_device = images.to(setup.device, memory_format=torch.channels_last), targets.to(setup.device)
    _add_written(trial, EAGER, ours, batch_on_device, (few, expected), setup)
    if not setup.on_cpu:
        _add_written(trial, EAGER_HALF, ours, batch_on_device, (few, expected), setup)
    for name, network in networks.others.items():
        _add_stranger(trial, name, network, batch_on_device, setup)
    yield trial
    if not setup.on_cpu:
        both = trial.extended(f"{trial.title}, compiled and as written", {"mode": COMPILED_TOO})
        _add_compiled(both, ours, batch_on_device, setup)
        if CONVNEXT in networks.others:
            build = partial(training_step, networks.others[CONVNEXT], *batch_on_device, bfloat16, compiled=True)
            with both.attempt(CONVNEXT_COMPILED):
                _add(both, CONVNEXT_COMPILED, build, setup)
        yield both


def _add_written(
    trial: Trial, name: str, ours: nn.Module, batch: Batch, check: tuple[Batch, Tensor], setup: Setup
) -> None:
    """One row of ours as written, after its gradients on a few images were compared with those in float32."""
    few, expected = check
    dtype = torch.float16 if name == EAGER_HALF else torch.bfloat16
    with trial.attempt(name):
        found = gradients(placed(ours, batch[0], channels_last=True), *few, dtype)
        what = f"gradients under {dtype} autocast against float32 on the CPU".replace("torch.", "")
        trial.agreements.append(Agreement(name, what, relative_rms(found, expected), _CAST_LIMIT))
        _add(trial, name, partial(training_step, ours, *batch, dtype), setup)


def _add_compiled(trial: Trial, ours: nn.Module, batch: Batch, setup: Setup) -> None:
    """Ours through torch.compile: what is checked on the whole batch is the object that is timed."""
    dtype = torch.bfloat16
    with trial.attempt(COMPILED):
        # As written it was compared with float32 on a few images.
        expected = gradients(placed(ours, batch[0], channels_last=True), *batch, dtype)

        def build() -> Workload:
            own = placed(ours, batch[0], channels_last=True).train()
            forward = compiled_for(own)
            found = gradients(own, *batch, dtype, forward=forward)
            what = "gradients of the whole batch under bfloat16 autocast against those as written"
            trial.agreements.append(Agreement(COMPILED, what, relative_rms(found, expected), _CAST_LIMIT))
            return _step(own, *batch, dtype, forward=forward)

        _add(trial, COMPILED, build, setup)


def _add_stranger(trial: Trial, name: str, network: nn.Module, batch: Batch, setup: Setup) -> None:
    """In bfloat16 if its kernels can, else in float16, and a note says so."""
    last = name == CONVNEXT
    build = partial(training_step, network, *batch, channels_last=last)
    before = len(trial.skipped)
    with trial.attempt(name):
        _add(trial, name, partial(build, torch.bfloat16), setup)
    if len(trial.skipped) > before and name in (OFFICIAL, FLASH):
        reason = trial.skipped.pop()[1]
        with trial.attempt(name):
            _add(trial, name, partial(build, torch.float16), setup)
            trial.notes.append(f"- {name} runs in float16 with gradient scaling; in bfloat16: {reason}.")


def _add(trial: Trial, name: str, build: Callable[[], Workload], setup: Setup) -> None:
    call, memory = build_measured(build, setup.device)
    trial.contenders.append(Contender(name, call))
    trial.memory[name] = memory


def gradients(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    dtype: torch.dtype | None,
    forward: nn.Module | None = None,
) -> Tensor:
    """All gradients of the cross-entropy in one vector, on the CPU.

    Args:
        network: has the parameters.
        images: (N, 3, H, W).
        targets: class numbers.
        dtype: of autocast; None is float32.
        forward: images to logits, if that is not the network itself but compiled from it.
    """
    parameters = list(network.parameters())
    device = parameters[0].device
    # Whether it is there, not whether it is true: a compiled network has a length that raises.
    call = network if forward is None else forward
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        loss = F.cross_entropy(call(images.to(device)).float(), targets.to(device))
    # Scaled up, for in float16 the smallest ones would vanish.
    scale = 1024.0
    found = torch.autograd.grad(loss * scale, parameters)
    return torch.cat([tensor.flatten().float() for tensor in found]).cpu() / scale


def training_step(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    *,
    compiled: bool = False,
    channels_last: bool = True,
) -> Workload:
    """Forward, cross-entropy, backward, AdamW on the same batch; float16 with gradient scaling, as people train."""
    own = placed(network, images, channels_last=channels_last).train()
    return _step(own, images, targets, dtype, forward=compiled_for(own) if compiled else own)


def _step(own: nn.Module, images: Tensor, targets: Tensor, dtype: torch.dtype, *, forward: nn.Module) -> Workload:
    kind = images.device.type
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-5, fused=kind == "cuda")
    scaler = torch.amp.GradScaler(kind, enabled=dtype == torch.float16)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype):
            loss = F.cross_entropy(forward(images), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def huge_trials(setup: Setup) -> Iterator[Trial]:
    """InternImage-H (1.08 billion parameters) at 640 pixels: the largest batch that an 80 GB card trains."""
    name, size, most = ("internimage_femto", 64, 2) if setup.on_cpu else ("internimage_h", 640, 64)
    if setup.quick:
        most = 2
    title = "InternImage-H training step with activation checkpointing, bfloat16 autocast"
    trial = Trial(title, {"suite": "huge"}, budget_s=LONG_BUDGET_S)
    if not setup.on_cpu:
        total = torch.cuda.get_device_properties(setup.device).total_memory
        share = min(_CARD_BYTES, total - _CONTEXT_BYTES) / total
        torch.cuda.set_per_process_memory_fraction(share, setup.device)
    with trial.attempt(HUGE):
        torch.manual_seed(0)
        with setup.device:
            network = scatter_sampling(create_model(name, gradient_checkpointing=True)).train()
        batch, call, memory = _largest_step(network, size, most, setup)
        weights = sum(tensor.numel() * tensor.element_size() for tensor in network.parameters()) / 2**20
        memory = Memory(memory.ready_mib + weights, memory.peak_mib + weights)
        trial.contenders.append(Contender(HUGE, call))
        trial.memory[HUGE] = memory
        trial.images_per_call = batch
        trial.key["batch"] = str(batch)
        trial.title += f", batch {batch}, {size} x {size}"
        trial.notes.append(
            f"- The largest batch that fits is {batch}{' (the most that was tried)' if batch == most else ''}: "
            f"{memory.peak_mib / 1024:.1f} GiB at the peak, weights, gradients and AdamW's state included; tensors may "
            f"take {_CARD_BYTES / 2**30:.0f} GiB, and leave {_CONTEXT_BYTES / 2**30:.0f} GiB of a smaller card."
        )
    yield trial
    if not setup.on_cpu:
        torch.cuda.set_per_process_memory_fraction(1.0, setup.device)
    cast(Any, torch)._dynamo.reset()


def _largest_step(network: nn.Module, size: int, most: int, setup: Setup) -> tuple[int, Workload, Memory]:
    """The largest batch that fits, its step and its memory; ``OutOfMemoryError`` if one image is too much."""
    found: dict[int, tuple[Workload, Memory]] = {}

    def fits(batch: int) -> bool:
        found.clear()
        network.zero_grad(set_to_none=True)
        release()
        try:
            images = random_images(batch, 3, size, setup.device).to(memory_format=torch.channels_last)
            targets = torch.arange(batch, device=setup.device)
            build = partial(_step, network, images, targets, torch.bfloat16, forward=network)
            found[batch] = build_measured(build, setup.device)
        except RuntimeError as error:
            check_device(error)
            if not is_out_of_memory(error):
                raise
            return False
        print(f"batch {batch}: {found[batch][1].peak_mib:.0f} MiB", flush=True)
        return True

    batch = largest_batch(fits, most)
    # The search ends with a batch that was too large. By now memory may be in pieces: then one image less.
    while batch > 0 and batch not in found and not fits(batch):
        batch -= 1
    if batch == 0:
        raise torch.cuda.OutOfMemoryError
    return batch, *found[batch]


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """Doubles until a batch no longer fits, then halves the gap; 0 if one image is too much.

    >>> tried = []
    >>> largest_batch(lambda batch: tried.append(batch) or batch <= 11, 64), tried
    (11, [1, 2, 4, 8, 16, 12, 10, 11])
    """
    good, bad = 0, most + 1
    batch = 1
    while batch <= most:
        if not fits(batch):
            bad = batch
            break
        good, batch = batch, 2 * batch
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good
