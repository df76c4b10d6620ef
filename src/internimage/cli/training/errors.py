"""What went wrong in a training, in one sentence."""

from __future__ import annotations

import re

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from internimage.data import ImageReadError

_OUT_OF_MEMORY = (
    "memory ran out: lower data.init_args.batch_size and raise trainer.accumulate_grad_batches by as much, take "
    "--trainer.precision bf16-mixed, or set model.init_args.model_options.gradient_checkpointing to true"
)
_FEWER_WORKERS = "if memory ran out, lower data.init_args.num_workers, and go on with --resume"


def in_short(error: Exception) -> Exception:
    """The one thing that matters in the parser's, Lightning's and a worker's long messages."""
    while str(error).startswith("Does not validate") and isinstance(error.__cause__, Exception):
        error = error.__cause__
    message = str(error)
    is_sent = message.startswith("Caught ") and "DataLoader worker" in message
    if is_sent:
        # A worker process sends its whole traceback; the message is its last line, after the error's name.
        message = re.sub(r"^[\w.]*Error: ", "", message.strip().splitlines()[-1])
    if _is_out_of_memory(error):
        return ValueError(_OUT_OF_MEMORY)
    if re.match(r"DataLoader worker \(pid.* (is killed|exited unexpectedly)", message):
        return ValueError(f"a process that reads pictures has died ({message.splitlines()[0]}); {_FEWER_WORKERS}")
    if found := re.match(r"DataLoader timed out after (\d+)", message):
        return ValueError(
            f"the processes that read pictures gave nothing for {int(found[1])} seconds: one hangs, or the disk does; "
            "go on with --resume, and raise --timeout_minutes if a batch takes that long"
        )
    if isinstance(error, ImageReadError):
        return ValueError(f"{message}; `internimage data check FOLDER` finds all such images")
    if isinstance(error, ArgumentError):
        lines = [line.strip(" -") for line in message.splitlines()]
        noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
        message = ": ".join(line.rstrip(":") for line in lines if line and not line.startswith(noise))
        if "required: " in message:
            message += "; begin with a recipe, such as --config smoke/classification"
        return ValueError(message)
    if isinstance(error, MisconfigurationException):
        return ValueError(" ".join(message.split()))
    return ValueError(message) if is_sent else error


def _is_out_of_memory(error: BaseException) -> bool:
    """Of a device, or of the machine: PyTorch's allocator for the CPU has no error of its own."""
    of_machine = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return of_machine or isinstance(error, torch.OutOfMemoryError | MemoryError)
