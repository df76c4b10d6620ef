"""One training step: forward, cross-entropy, backward, AdamW."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.comparison import Agreement, Comparison, Contender, Settings, full_float32, relative_rms
from benchmarks.networks import (
    NetworkSpec,
    autocast,
    build_network,
    build_networks,
    line_up,
    random_images,
    scatter_sampling,
)
from benchmarks.official import OFFICIAL_NAME
from benchmarks.timing import Workload
from internimage import create_model
from internimage.model.checkpoints.convert import to_ours

# Relative RMS of the loss and of all gradients together.
LOSS_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
_AGAINST = "against the official network with the same weights"


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """The networks of `models` on a small batch, and our smallest one as a laptop trains it."""
    batch = (2 if settings.quick else 8) if settings.device.type == "cpu" else 64
    line = line_up(settings)
    images, targets = random_images(batch, 3, line.size, settings.device), _targets(batch, 1000, settings.device)
    for cast in (False, True) if settings.device.type == "cuda" else (False,):
        networks = {name: network.train() for name, network in build_networks(line.specs, settings.device).items()}
        checks = agreements(networks, line.specs[0].name, images, targets)
        contenders = tuple(
            Contender(
                spec.name,
                workload(networks[spec.name], images, targets, cast),
                partial(_rebuild, spec, batch, line.size, settings.device, cast),
            )
            for spec in line.specs
        )
        title = f"Training step, batch {batch}, {line.size} x {line.size}, {'bfloat16 autocast' if cast else 'float32'}"
        yield Comparison(title, contenders, checks, line.skipped, images_per_call=batch)
    yield _small(settings)


def _small(settings: Settings) -> Comparison:
    name, batch = "internimage_femto", 4 if settings.quick else 64
    contender = Contender(name, small_step(batch, settings.device), partial(small_step, batch, settings.device))
    return Comparison(
        f"Training step, batch {batch}, 28 x 28, one channel, stem strides 2 and 1, float32",
        (contender,),
        images_per_call=batch,
    )


def small_step(batch: int, device: torch.device) -> Workload:
    """Our smallest network on grey images of 28 x 28 pixels, ten classes; its first map has 14 x 14 positions."""
    torch.manual_seed(0)
    network = create_model("internimage_femto", in_chans=1, num_classes=10, stem_strides=(2, 1))
    network = scatter_sampling(network).to(device).train()
    return workload(network, random_images(batch, 1, 28, device), _targets(batch, 10, device), False)


def agreements(networks: dict[str, nn.Module], ours: str, images: Tensor, targets: Tensor) -> tuple[Agreement, ...]:
    """Loss and gradients of ours against the official network with the same weights, in float32."""
    if OFFICIAL_NAME not in networks:
        return ()
    with full_float32():
        (our_loss, our_grads), (loss, grads) = (
            _loss_and_gradients(networks[name], images, targets) for name in (ours, OFFICIAL_NAME)
        )
    renamed = to_ours(grads).state
    if set(renamed) != set(our_grads):
        raise AssertionError(f"gradients have other names: {sorted(set(renamed) ^ set(our_grads))[:5]}")
    actual, expected = (
        torch.cat([found[name].flatten() for name in sorted(renamed)]) for found in (our_grads, renamed)
    )
    return (
        Agreement(ours, f"loss {_AGAINST}", relative_rms(our_loss, loss), LOSS_LIMIT),
        Agreement(ours, f"gradients {_AGAINST}", relative_rms(actual, expected), GRADIENT_LIMIT),
    )


def _loss_and_gradients(network: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    loss = F.cross_entropy(network(images), targets)
    names, parameters = zip(*network.named_parameters(), strict=True)
    return loss.detach(), dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def workload(network: nn.Module, images: Tensor, targets: Tensor, cast: bool) -> Workload:
    """One optimizer step on the same batch; the learning rate is small, so that a thousand steps stay finite."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(images.device, cast):
            loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _targets(batch: int, classes: int, device: torch.device) -> Tensor:
    return torch.arange(batch, device=device) % classes


def _rebuild(spec: NetworkSpec, batch: int, size: int, device: torch.device, cast: bool) -> Workload:
    network = build_network(spec).to(device).train()
    return workload(network, random_images(batch, 3, size, device), _targets(batch, 1000, device), cast)
