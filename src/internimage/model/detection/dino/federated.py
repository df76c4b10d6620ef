"""Which classes a step of a federated set learns from, where no picture is annotated for all of them.

Shape legend: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FederatedClasses(nn.Module):
    """Chooses the classes of a step: all that its pictures show, and others at random up to a number.

    Others are drawn without replacement, each with a probability in proportion to its frequency to the power of
    ``power``: a common class that a picture does not show is more often truly absent than merely not annotated.
    The frequencies are a buffer that no file holds: whoever trains takes them from the training set.

    Source: the federated loss of sec. 5.4 of arXiv:2103.07461, with 50 classes and a power of 0.5.

    Args:
        num_classes: C.
        count: how many classes count where the pictures show fewer; all where C is no larger.
        power: of the frequencies, 0 or more; 0 draws all classes alike.

    Raises:
        ValueError: ``count`` is below 1, or ``power`` below 0.

    >>> chooser = FederatedClasses(num_classes=4, count=2)
    >>> chooser.set_frequencies([5, 0, 0, 9])
    >>> chooser([torch.tensor([1]), torch.tensor([1, 1])]).sum()
    tensor(2)
    """

    frequencies: Tensor

    def __init__(self, num_classes: int, count: int = 50, power: float = 0.5) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"a federated loss needs at least one class a step, got count {count}")
        if not power >= 0:
            raise ValueError(f"the power of the frequencies must be 0 or more, got {power}")
        self.count, self.power = count, power
        self.register_buffer("frequencies", torch.ones(num_classes), persistent=False)

    def set_frequencies(self, frequencies: Sequence[int]) -> None:
        """Take the number of training pictures of each class; without it all are equally frequent.

        Raises:
            ValueError: another number of classes, or a frequency below 0.
        """
        if len(frequencies) != len(self.frequencies):
            raise ValueError(f"there are {len(frequencies)} frequencies for {len(self.frequencies)} classes")
        if min(frequencies) < 0:
            raise ValueError(f"a frequency must be 0 or more, got {min(frequencies)}")
        self.frequencies.copy_(torch.tensor(frequencies, dtype=self.frequencies.dtype))

    def forward(self, labels: Sequence[Tensor]) -> Tensor:
        """(C,) bool: the classes that count.

        What is drawn follows from PyTorch's generator of the CPU alone, on whatever device the network is.

        Args:
            labels: of each picture, int64, from 0; there may be none.
        """
        shown_C = torch.zeros(len(self.frequencies), dtype=torch.bool, device=self.frequencies.device)
        for each in labels:
            shown_C[each] = True
        weights_C = self.frequencies.double().pow(self.power).masked_fill(shown_C, 0).cpu()
        # A class that no picture shows has no weight, and is never drawn.
        missing = min(self.count - int(shown_C.sum()), int((weights_C > 0).sum()))
        if missing > 0:
            shown_C[torch.multinomial(weights_C, missing).to(shown_C.device)] = True
        return shown_C
