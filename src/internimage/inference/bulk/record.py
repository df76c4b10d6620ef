"""What a run of predictions was asked for, beside its rows: so that it goes on as it began."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Record:
    """A small JSON file: the settings of a run, and what came of it once it has finished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of a run that begins."""
        self._write({"settings": settings})

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` unless the run was begun with the same settings."""
        earlier = self._read()["settings"]
        # What JSON makes of tuples.
        for name, now in json.loads(json.dumps(settings)).items():
            if earlier.get(name) != now:
                raise ValueError(
                    f"{self.path} was begun with {name} {_shown(earlier.get(name))}, now it is {_shown(now)}; go on as "
                    "it began, or begin anew with --overwrite"
                )

    def finish(self, images: int, errors: int) -> None:
        """Write that all is done."""
        self._write(self._read() | {"finished": {"images": images, "errors": errors}})

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return "finished" in self._read()

    def _read(self) -> dict[str, Any]:
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
            assert isinstance(content["settings"], dict)
        except (ValueError, TypeError, KeyError, AssertionError):
            raise ValueError(f"{self.path} is damaged; begin anew with --overwrite") from None
        return content

    def _write(self, content: Mapping[str, Any]) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.path)


def digest(state: Mapping[str, Tensor]) -> str:
    """What tells weights apart, whatever their file is called.

    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2)}) != digest({"a": torch.ones(2)})
    True
    """
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(f"{name} {tuple(state[name].shape)} {state[name].dtype}\n".encode())
        values: Any = state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found.update(values)
    return found.hexdigest()


def _shown(value: Any) -> str:
    """A value in a sentence; of a digest, enough to tell it from another."""
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
