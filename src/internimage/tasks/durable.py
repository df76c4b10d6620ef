"""States on disk that survive a crash: written whole or not at all, checked when they are read."""

from __future__ import annotations

import contextlib
import errno
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

# What a file is called until it is complete.
_PARTIAL = ".partial"


class DurableCheckpointIO(TorchCheckpointIO):
    """Local states are on the disk before they take their name, and the state before stays beside some of them.

    Args:
        kept: from the name of a state to that under which the one before it stays.
    """

    def __init__(self, kept: dict[str, str]) -> None:
        self.kept = kept
        # The name of the state that training goes on from.
        self._source: str | None = None

    def load_checkpoint(self, path: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        """As Lightning's own; a state that stood in for a damaged one stays until the next is written."""
        self._source = Path(path).name
        return super().load_checkpoint(path, *args, **settings)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write; raises `OSError` in words where it can't be done, and then all older files are as they were."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + _PARTIAL)
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            partial.unlink(missing_ok=True)
            # PyTorch's writer hides what went wrong in an error of its own.
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError):
                raise _in_words(target, cause) from error
            raise
        before = self.kept.get(target.name)
        stays = before == self._source
        self._source = None if stays else self._source
        if before is not None and target.exists() and not stays:
            # Between this and the next line only the older one is there, and that is where a reader looks then.
            target.replace(target.with_name(before))
        partial.replace(target)
        _sync_folder(target.parent)


def damage(path: Path) -> str | None:
    """What is wrong with a state, or None: every record is read and compared with its checksum.

    DeepSpeed's folders have none; one that holds something counts as whole.
    """
    if path.is_dir():
        return None if any(path.iterdir()) else "is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        return f"is damaged or cut short ({error})"
    return None if bad is None else f"is damaged (its part {bad} has another checksum)"


def first_intact(paths: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """The first state that is whole, and in words what is wrong with those before it that are there."""
    problems: list[str] = []
    for path in paths:
        found = damage(path)
        if found is None:
            return path, problems
        if path.exists():
            problems.append(f"{path} {found}")
    return None, problems


def _in_words(path: Path, error: OSError) -> OSError:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    older = "; the state before is kept" if path.exists() else ""
    return OSError(error.errno, f"{path} could not be written, {reason}{older}; mend that and go on with --resume")


def _sync_folder(folder: Path) -> None:
    # The new name is safe only when the folder is; some systems can't open one.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
