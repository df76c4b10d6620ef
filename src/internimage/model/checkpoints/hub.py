"""Finding weight files: a path, a name from the weight table, or a hub id; and what to do offline."""

# huggingface_hub is typed in part only.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from internimage.model.weights import WEIGHTS, Weights

# Files put here by hand are found by name, without a network.
FOLDER_VARIABLE = "INTERNIMAGE_WEIGHTS"


def weights_folder() -> Path:
    """Where hand-placed weight files are looked for: $INTERNIMAGE_WEIGHTS, or ~/.cache/internimage."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "internimage").expanduser()


def locate(source: str | Path) -> Path:
    """A local file or folder for a path, a name from the weight table or a hub id (``owner/name``).

    Downloads go through huggingface_hub into its cache.

    Raises:
        ValueError: nothing of that name.
        ConnectionError: the file is not here and can't be downloaded; says what to download and where to put it.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    name = str(source)
    if name in WEIGHTS:
        return _released(WEIGHTS[name])
    if name.count("/") == 1 and not path.suffix and not name.startswith((".", "/", "~")):
        return _hub_model(name)
    raise ValueError(f"no weights at {source}: no such file, and no such name; `internimage models` lists the names")


def _released(weights: Weights) -> Path:
    placed = weights_folder() / weights.file
    if placed.is_file():
        return placed
    try:
        return Path(hf_hub_download(weights.repository, weights.file))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConnectionError(
            f"{weights.name} could not be downloaded ({_reason(error)}). "
            f"Download {weights.url} elsewhere and put it at {placed}, or pass its path."
        ) from None


def _hub_model(repository: str) -> Path:
    try:
        for name in ("model.safetensors", "pytorch_model.bin"):
            try:
                file = Path(hf_hub_download(repository, name))
            except EntryNotFoundError as error:
                # A file that is not cached and can't be looked up is a connection's fault, not the repository's.
                if isinstance(error, LocalEntryNotFoundError):
                    raise
                continue
            hf_hub_download(repository, "config.json")
            return file
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConnectionError(
            f"{repository} could not be downloaded ({_reason(error)}). Download model.safetensors and config.json from "
            f"https://huggingface.co/{repository} into one folder and pass that folder."
        ) from None
    raise ValueError(f"{repository} has neither model.safetensors nor pytorch_model.bin")


def _reason(error: Exception) -> str:
    return type(error).__name__
