"""A set of real pictures, packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from internimage.data import export_samples
from internimage.data.shards import pack


@pytest.fixture(scope="session")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures to train on, 30 to validate."""
    root = tmp_path_factory.mktemp("clothes")
    export_samples(root / "train", "train", 60)
    export_samples(root / "val", "test", 30)
    return root


@pytest.fixture(scope="session")
def packed(clothes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards of eight pictures or so."""
    folder = tmp_path_factory.mktemp("packed")
    pack(clothes, folder, shard_mib=0.02)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of a test reaches the user's cache."""
    monkeypatch.setenv("INTERNIMAGE_SHARDS", str(tmp_path / "cache"))
    return tmp_path / "cache"
