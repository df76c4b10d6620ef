"""What shifts, turns and damages of pictures do to classifiers, side by side on the same pictures.

Shape legend: N pictures, C channels, H W picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from internimage.data.corruptions import CORRUPTIONS, Corruption
from internimage.data.samples.fashion_mnist import folder_name
from internimage.inference.classification import Classifier
from internimage.structures import LabelMap, Robustness

# Pictures (N, C, H, W), float32 in [0, 1] -> the classes' indices, (N,).
Classify = Callable[[Tensor], Tensor]


def measure_robustness(
    classifiers: Mapping[str, Classify],
    pictures: Iterable[tuple[Tensor, int]],
    *,
    corruptions: Sequence[Corruption] = tuple(CORRUPTIONS.values()),
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[Robustness]:
    """Show every classifier the same pictures, as they are and changed in every way; one result for each of them.

    Pictures are asked for as they are needed, and only one batch of them is held at a time.

    Args:
        classifiers: by their names; what they make of pictures is their own affair.
        pictures: (C, H, W), float32 in [0, 1], all of one size, each with its class.
        corruptions: the changes.
        batch_size: pictures that are shown together.
        progress: called after every batch with the number of pictures so far.

    Raises:
        ValueError: no picture, no classifier, no change, or a classifier that doesn't give one class per picture.
    """
    if not classifiers or not corruptions or batch_size < 1:
        raise ValueError("give at least one classifier and one corruption, and a batch_size of at least 1")
    # By classifier, corruption ("" is none) and severity from 1: right ones, and those named as without a change.
    right: dict[tuple[str, str, int], int] = defaultdict(int)
    same: dict[tuple[str, str, int], int] = defaultdict(int)
    total = 0
    for batch in _batches(pictures, batch_size):
        clean_NCHW = torch.stack([picture for picture, _ in batch])
        target_N = torch.tensor([target for _, target in batch])
        before = {name: _classes(classify, clean_NCHW, name) for name, classify in classifiers.items()}
        for name, class_N in before.items():
            right[name, "", 0] += int((class_N == target_N).sum())
        for corruption in corruptions:
            for severity in range(1, len(corruption.strengths) + 1):
                changed = [corruption(each, severity, total + row) for row, each in enumerate(clean_NCHW)]
                changed_NCHW = torch.stack(changed)
                for name, classify in classifiers.items():
                    class_N = _classes(classify, changed_NCHW, name)
                    right[name, corruption.name, severity] += int((class_N == target_N).sum())
                    same[name, corruption.name, severity] += int((class_N == before[name]).sum())
        total += len(batch)
        if progress is not None:
            progress(total)
    if not total:
        raise ValueError("there is no picture to show: give at least one")

    def shares(counts: Mapping[tuple[str, str, int], int], name: str) -> dict[str, tuple[float, ...]]:
        return {
            each.name: tuple(
                counts[name, each.name, severity] / total for severity in range(1, len(each.strengths) + 1)
            )
            for each in corruptions
        }

    return [
        Robustness(name, total, right[name, "", 0] / total, shares(right, name), shares(same, name))
        for name in classifiers
    ]


def classify_with(classifier: Classifier, labels: LabelMap) -> Classify:
    """A classifier of ours as `measure_robustness` asks it, answering in the classes of the pictures.

    Args:
        classifier: its classes may be more than those of the pictures: only these are answers.
        labels: the pictures' classes, in the order of their indices.

    Raises:
        ValueError: a class that the classifier doesn't know.
    """
    network, device, preprocess = classifier.model, classifier.device, classifier.preprocess
    # Pictures of some classes, such as T-shirt/top, lie in folders of other names.
    of_folder = {folder_name(name): index for index, name in enumerate(classifier.labels)}
    order = torch.tensor(
        [of_folder[name] if name in of_folder else classifier.labels.index(name) for name in labels], device=device
    )
    mean_C11, std_C11 = (
        torch.tensor(values, device=device).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std)
    )

    def classify(picture_NCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            scores_NK = network((picture_NCHW.to(device) - mean_C11) / std_C11)
        return scores_NK[:, order].argmax(1).cpu()

    return classify


def evenly(targets: Sequence[int], count: int | None) -> list[int]:
    """Indices, ascending, of ``count`` pictures that are spread over the classes as evenly as there are some.

    >>> evenly([0, 0, 0, 1, 1, 2], 4)
    [0, 1, 3, 5]
    """
    seen: dict[int, int] = defaultdict(int)
    ranked: list[tuple[int, int]] = []
    for index, target in enumerate(targets):
        ranked.append((seen[target], index))
        seen[target] += 1
    return sorted(index for _, index in sorted(ranked)[:count])


def _batches(pictures: Iterable[tuple[Tensor, int]], size: int) -> Iterator[list[tuple[Tensor, int]]]:
    waiting = iter(pictures)
    while batch := list(islice(waiting, size)):
        yield batch


def _classes(classify: Classify, picture_NCHW: Tensor, name: str) -> Tensor:
    class_N = classify(picture_NCHW)
    if class_N.shape != (len(picture_NCHW),):
        raise ValueError(f"{name} gives {tuple(class_N.shape)} for {len(picture_NCHW)} pictures; one class each is due")
    return class_N.cpu()
