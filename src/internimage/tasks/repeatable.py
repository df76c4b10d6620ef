"""Training that comes out the same again: what is random depends on where it is, not on what came before.

The order of an epoch follows from the seed and the epoch; how a picture is varied from these and the picture; what a
step draws (mixing, dropped paths) from these, the step and the process. So a training that goes on at any step is the
uninterrupted one, with any number of workers, and nothing random has to be saved but the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from internimage.data import ImageReadError
from internimage.data.shards import ShardDataset
from internimage.tasks.guards import Unreadable

# What each kind of randomness is called, so that none repeats another.
_PICTURES, _STEPS = 1, 2
_TRIES_NEAR = 8
Key = tuple[int, int]
"""An epoch, and the number of a sample in its set, or its place in the epoch's draw."""


def seed_all(*keys: int) -> int:
    """Let ``random``, ``numpy`` and ``torch`` on the CPU begin anew, each of ``keys`` giving another beginning.

    Returns the seed of ``torch``.
    """
    words = np.random.SeedSequence(keys).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    seed = int(words[2]) << 32 | int(words[3])
    # `torch.manual_seed` would also seek devices, which a worker process must not touch.
    torch.default_generator.manual_seed(seed)
    return seed


@dataclass(frozen=True)
class Position:
    """Where a training stands: ``batches`` of this process's ``epoch`` are trained on."""

    epoch: int = 0
    batches: int = 0

    @classmethod
    def of(cls, trainer: Trainer | None) -> Position:
        """Now, also just after a checkpoint was read."""
        if trainer is None:
            return cls()
        loop = trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        batches: Any = loop.epoch_loop.batch_progress.current
        # A state that was saved when an epoch had ended still counts its batches.
        has_ended = epochs.processed > epochs.completed
        return cls(epochs.processed, 0 if has_ended else batches.processed)


class Draw(Protocol):
    """Which samples an epoch shows, where it is not each of them once."""

    def __len__(self) -> int:
        """How many an epoch shows."""
        ...

    def of_epoch(self, seed: int, epoch: int) -> Sequence[int]:
        """Their numbers in the set, in any order; the same for the same arguments."""
        ...


class SeededSamples(Dataset[Any]):
    """A set whose samples come out the same for the same key, in whatever order and process they are read.

    Args:
        samples: varied at random.
        seed: of the training.
        unreadable: where to note what can't be read, and how much of it there may be; another sample takes its place.
            By default the first one is an error.
        later: the same samples, varied otherwise, by the epoch from which they are.
        draw: which samples an epoch shows; by default each once. A key then is a place among them.
    """

    def __init__(
        self,
        samples: Dataset[Any],
        seed: int,
        unreadable: Unreadable | None = None,
        later: Mapping[int, Dataset[Any]] | None = None,
        draw: Draw | None = None,
    ) -> None:
        self.samples, self.seed, self.unreadable, self.draw = samples, seed, unreadable, draw
        self.steps = {0: samples, **(later or {})}
        self._drawn: tuple[int, Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(cast(Sized, self.samples) if self.draw is None else self.draw)

    def index_of(self, key: Key) -> int:
        """The number of a key's sample in its set."""
        epoch, place = key
        if self.draw is None:
            return place
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self.draw.of_epoch(self.seed, epoch)
        return self._drawn[1][place]

    def __getitem__(self, key: Key | int) -> Any:
        """The sample of a `Key`; a number alone is one of the first epoch."""
        epoch, place = key if isinstance(key, tuple) else (0, key)
        samples = self.steps[max(begin for begin in self.steps if begin <= epoch)]
        index = self.index_of((epoch, place))
        seed_all(self.seed, _PICTURES, epoch, place)
        near = _near(self.samples, index)
        for attempt in count():
            try:
                return samples[index]
            except ImageReadError as error:
                if self.unreadable is None:
                    raise
                self.unreadable.note(error, len(cast(Sized, self.samples)))
            # What lies beside it is at hand, unless all of it is damaged.
            places = near if attempt < _TRIES_NEAR else range(len(cast(Sized, self.samples)))
            index = places[int(torch.randint(len(places), ()))]
        raise AssertionError("counting has no end")


def _near(samples: Dataset[Any], index: int) -> range:
    """Where to look for a picture in place of another."""
    return samples.near(index) if isinstance(samples, ShardDataset) else range(len(cast(Sized, samples)))


class EpochSampler(DistributedSampler[Any]):
    """Keys of a `SeededSamples`: each sample once an epoch, shuffled anew each time; every process takes its share.

    Shards are shuffled as `epoch_order` says, so that each process reads a few of its own at a time.

    Where the samples can't be shared out evenly, some of the first come twice, as with `DistributedSampler`.

    Args:
        samples: what is sampled.
        seed: of the training.
        trainer: whose processes share the samples, and whose position in an epoch is where the keys begin.
        batch_size: samples of a batch and process.
    """

    def __init__(self, samples: SeededSamples, seed: int, trainer: Trainer | None, batch_size: int) -> None:
        processes, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        super().__init__(samples, processes, rank, shuffle=True, seed=seed)
        self.samples, self.trainer, self.batch_size = samples, trainer, batch_size

    def __iter__(self) -> Iterator[Any]:
        # Lightning says the epoch too late: workers read ahead as soon as they exist.
        return self.keys_from(Position.of(self.trainer))

    def keys_from(self, position: Position) -> Iterator[Key]:
        """What comes from there to the end of the epoch."""
        done = position.batches * self.batch_size
        samples = self.samples.samples
        if isinstance(samples, ShardDataset):
            indices = samples.epoch_order(self.seed, position.epoch, self.rank, self.num_replicas, done)
        else:
            self.set_epoch(position.epoch)
            indices = islice(cast(Iterator[int], super().__iter__()), done, None)
        return ((position.epoch, index) for index in indices)


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning that a training may go on in the middle of an epoch: the sampler finds its place by itself."""

    # Lightning asks for an iterator before it has read where the training stands, and workers would read ahead at once.
    def __iter__(self) -> Any:
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's own counters say it all."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to do."""


def seed_step(seed: int, trainer: Trainer) -> None:
    """What the next training step draws; each process draws something else."""
    place = Position.of(trainer)
    own = seed_all(seed, _STEPS, place.epoch, place.batches, trainer.global_rank)
    if trainer.strategy.root_device.type != "cpu":
        torch.manual_seed(own)
