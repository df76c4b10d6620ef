"""Finding weight files: a path, a name from the weight table, or a hub id; and what to do offline."""

# huggingface_hub is typed in part only.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from internimage.model.checkpoints.files import HUB_FILES, describes_itself, shard_names
from internimage.model.weights import (
    DETECTORS,
    SEGMENTERS,
    SHIPPED,
    WEIGHTS,
    DetectorWeights,
    SegmenterWeights,
    Weights,
)

# Files put here by hand are found by name, without a network.
FOLDER_VARIABLE = "INTERNIMAGE_WEIGHTS"
# What tells a missing file "runs/best.pth" from a hub id, which may have dots too.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".json")


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
    if shipped := SHIPPED.get(name):
        return shipped.path
    if released := WEIGHTS.get(name) or DETECTORS.get(name) or SEGMENTERS.get(name):
        return _released(released)
    looks_local = path.suffix in _SUFFIXES or name.startswith((".", "/", "~")) or path.parent.is_dir()
    if name.count("/") == 1 and not looks_local:
        return _hub_model(name)
    raise ValueError(f"no weights at {source}: no such file, and no such name; `internimage models` lists the names")


def _released(weights: Weights | DetectorWeights | SegmenterWeights) -> Path:
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
    not_here = False
    try:
        for name in HUB_FILES:
            try:
                # Without a connection the library tries for half a minute: once is enough.
                file = Path(hf_hub_download(repository, name, local_files_only=not_here))
            except EntryNotFoundError as error:
                # Offline, a file that is not cached may exist; online, the repository has been asked.
                not_here = not_here or isinstance(error, LocalEntryNotFoundError)
                continue
            for shard in shard_names(file):
                hf_hub_download(repository, shard)
            # Our own files carry their description; others need this one beside them.
            if not describes_itself(file):
                _fetch_description(repository)
            return file
    except (HfHubHTTPError, OSError) as error:
        # A closed repository is a kind of missing one to the library.
        if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
            raise ValueError(
                f"no weights at {repository}: no such file, and no such repository on the hub; "
                "check the spelling, or log in if it is private"
            ) from None
        raise ConnectionError(_hub_advice(repository, _reason(error))) from None
    if not_here:
        raise ConnectionError(_hub_advice(repository, "it is not in the cache, and the hub can't be reached"))
    raise ValueError(f"{repository} has none of {', '.join(HUB_FILES)}")


def _fetch_description(repository: str) -> None:
    try:
        hf_hub_download(repository, "config.json")
    except LocalEntryNotFoundError:
        # Not asked, so there may be one, and the weights mean little without it; unless the cache knows of none.
        if try_to_load_from_cache(repository, "config.json") is None:
            raise
    except EntryNotFoundError:
        return


def _hub_advice(repository: str, reason: str) -> str:
    return (
        f"{repository} could not be downloaded ({reason}). Download model.safetensors and config.json from "
        f"https://huggingface.co/{repository} into one folder and pass that folder."
    )


def _reason(error: Exception) -> str:
    return type(error).__name__
