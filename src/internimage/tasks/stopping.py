"""Ending a training in order when somebody or something asks for it: Ctrl-C, SIGTERM, SLURM's warning."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

log = logging.getLogger(__name__)


class Signals(Callback):
    """After a signal the step under way is finished, `LastState` saves, and the training ends; a second one is Ctrl-C.

    Lightning ends at once on Ctrl-C, which may cut a step of the optimizer in two, and its processes don't agree on
    where to end. Put it last, so that all others have heard of the step.

    Attributes:
        requeue: SLURM has warned that the job's time is over, and wants it queued again.
    """

    def __init__(self) -> None:
        self.requeue = False
        self._asked = self._speaks = False
        self._warning: signal.Signals | None = None
        self._old: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; Lightning has set its own handlers by now."""
        self._asked = self.requeue = False
        self._speaks = trainer.is_global_zero
        if threading.current_thread() is not threading.main_thread():
            return
        listened = [signal.SIGINT, signal.SIGTERM]
        # A strategy for one device does not say it.
        environment: Any = cast(Any, trainer)._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._warning = environment.requeue_signal or signal.SIGUSR1
            listened.append(self._warning)
        self._old = {number: signal.signal(number, self._hear) for number in listened}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Between two steps of the optimizer is the place to end."""
        if ends_step(trainer, batch_idx):
            self._end_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A validation begins anew when the training goes on."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._end_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal means what it did before."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same after an error."""
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        self.requeue = self.requeue or number == self._warning
        if self._speaks:
            # The logging module may hold its lock just now.
            os.write(2, f"\n{signal.Signals(number).name}: ending after this step\n".encode())

    def _end_if_asked(self, trainer: Trainer) -> None:
        # Whoever hears of it first: all end after the same step.
        if any_process(trainer, self._asked):
            raise SIGTERMException

    def _restore(self) -> None:
        while self._old:
            number, handler = self._old.popitem()
            signal.signal(number, handler)


@contextmanager
def signals_restored() -> Iterator[None]:
    """Within it signals may get other handlers; afterwards they have those from before.

    Lightning leaves its own behind where closing a run fails, as on a full disk. A process that was forked later would
    then not end when it is told to.
    """
    # Only the main thread may set handlers. Windows has no SIGUSR1; a handler that Python did not set reads as None.
    is_main = threading.current_thread() is threading.main_thread()
    names = ("SIGINT", "SIGTERM", "SIGUSR1") if is_main else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the optimizer steps after this batch of an epoch."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def any_process(trainer: Trainer, value: bool) -> bool:
    """Whether it is true in any process; all of them must ask."""
    if trainer.world_size == 1:
        return value
    return trainer.strategy.reduce_boolean_decision(value, all=False)


def requeue() -> None:
    """Put this SLURM job back into the queue."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if job is None else f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = str(error)
    if reason:
        log.warning("SLURM did not put job %s back into its queue: %s", job, reason)
    else:
        log.info("SLURM has put job %s back into its queue", job)
