"""Train a small InternImage on the sample images without Lightning: the pieces are ordinary PyTorch."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import internimage
from internimage.data import SAMPLE_LABELS, SAMPLE_PREPROCESS, SampleDataset, to_tensor
from internimage.training import WarmupCosine, param_groups

STEPS, BATCH = 60, 32


def main() -> None:
    torch.manual_seed(0)
    dataset = SampleDataset("train", transform=lambda image: to_tensor(image, SAMPLE_PREPROCESS))
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
    model = internimage.create_model(
        "internimage_femto", num_classes=len(SAMPLE_LABELS), in_chans=1, stem_strides=(2, 2)
    )
    groups = param_groups(model, lr=2e-3, weight_decay=0.05, depths=model.config.depths, layer_decay=0.95)
    optimizer = torch.optim.AdamW(groups)
    scheduler = WarmupCosine(STEPS, warmup_steps=10).attach(optimizer)
    losses: list[float] = []
    for _, (images, targets) in zip(range(STEPS), loader, strict=False):
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    print(f"loss {first:.2f} -> {last:.2f}")
    assert last < 0.8 * first


if __name__ == "__main__":
    main()
