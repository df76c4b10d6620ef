"""Fine-tune on pictures in a folder per class, in plain PyTorch: `python examples/fine_tune_on_a_folder.py [FOLDER]`.

By default 600 shipped pictures of clothes; the weights have seen none before.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import internimage
from internimage.data import export_samples, labels_in, open_split, to_tensor
from internimage.training import WarmupCosine, param_groups

WEIGHTS, EPOCHS = "internimage_pico.cifar10_32", 3


def accuracy(model: torch.nn.Module, loader: DataLoader) -> float:
    model.eval()
    with torch.inference_mode():
        return float(torch.cat([(model(images).argmax(1) == targets).float() for images, targets in loader]).mean())


def fine_tune(root: Path) -> tuple[float, float]:
    """Accuracy before and after on a fifth of each class's pictures, which training does not see."""
    labels, trained = labels_in(root), internimage.Classifier(WEIGHTS, device="cpu")
    # Pictures are prepared as those were that the weights come from.
    options = {"labels": labels, "val_fraction": 0.2, "transform": partial(to_tensor, preprocess=trained.preprocess)}
    train = DataLoader(open_split(root, "train", **options), batch_size=20, shuffle=True)
    val = DataLoader(open_split(root, "val", **options), batch_size=100)
    model = trained.model
    model.reset_classifier(len(labels))
    before = accuracy(model, val)
    optimizer = torch.optim.AdamW(param_groups(model, lr=3e-3, weight_decay=0.05, depths=model.config.depths))
    scheduler = WarmupCosine(EPOCHS * len(train), warmup_steps=10).attach(optimizer)
    for _ in range(EPOCHS):
        model.train()
        for images, targets in train:
            F.cross_entropy(model(images), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    return before, accuracy(model, val)


if __name__ == "__main__":
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) == 1:
            export_samples(Path(folder), "train", 600)
        before, after = fine_tune(Path(sys.argv[1] if len(sys.argv) > 1 else folder))
    print(f"right before: {before:.0%}, after {EPOCHS} epochs: {after:.0%}")
    assert after > before
