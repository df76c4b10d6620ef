"""Files that must not load: each is refused with one sentence that names it, and no code in it runs."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from internimage import InternImageClassifier, load_checkpoint, save_checkpoint
from internimage.model import read_checkpoint
from internimage.model.checkpoints.convert import to_official


class Evil:
    """Unpickled by anything looser, it writes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_does_not_run(zipped: bool, network: InternImageClassifier, tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.pth"
    contents = {"model": to_official(network.state_dict()), "extra": Evil(witness)}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    refused(path, r"refused: loading it would run (posix|nt)\.system; re-save it as safetensors")
    assert not witness.exists()
    # The file is a working trap: a loader without care falls into it.
    torch.load(path, weights_only=False)
    assert witness.exists()


def test_code_in_a_hub_folder_does_not_run(tmp_path: Path) -> None:
    torch.save({"model": Evil(tmp_path / "witness")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint(tmp_path)
    assert not (tmp_path / "witness").exists()


def test_allowing_numbers_does_not_outlive_the_call(network: InternImageClassifier, tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": to_official(network.state_dict())}, tmp_path / "a.pth")
    read_checkpoint(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda network: network, r"would run internimage\.model\.classifier\.InternImageClassifier"),
        (lambda network: {"model": {}, "args": argparse.Namespace(lr=1)}, r"would run argparse\.Namespace"),
        (lambda network: [1, 2], "holds a list, not weights by name"),
        (lambda network: torch.zeros(3), "holds a Tensor, not weights by name"),
        (lambda network: {}, "not an InternImage's weights"),
        (lambda network: {"model": {}}, "not an InternImage's weights"),
        (lambda network: {0: torch.zeros(1), "epoch": 3}, "not an InternImage's weights"),
        (lambda network: {"layer1.0.conv1.weight": torch.zeros(1)}, r"not an InternImage's .*layer1\.0\.conv1"),
    ],
    ids=["whole_module", "namespace", "list", "tensor", "empty", "empty_model", "other_keys", "resnet"],
)
def test_pickles_of_something_else(
    contents: Callable[..., Any], message: str, network: InternImageClassifier, tmp_path: Path
) -> None:
    torch.save(contents(network), tmp_path / "other.pth")
    refused(tmp_path / "other.pth", message)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_truncated_pickle(share: float, zipped: bool, network: InternImageClassifier, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"model": to_official(network.state_dict())}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "damaged.*; download or copy it again")


@pytest.mark.parametrize("share", [0.00001, 0.01, 0.5, 0.999])
def test_truncated_safetensors(share: float, network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "cut.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "not a readable safetensors file .*; download or copy it again")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ".bin"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty \(0 bytes\)"),
        ("hello world\n", "download or copy it again"),
        ("<!DOCTYPE html><html>404</html>", "download or copy it again"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "download or copy it again"),
        ("{}", "download or copy it again"),
        (".", "download or copy it again"),
    ],
    ids=["empty", "text", "html", "lfs_pointer", "json", "dot"],
)
def test_files_of_something_else(text: str, message: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"weights{suffix}").write_text(text)
    refused(tmp_path / f"weights{suffix}", message)


def test_random_bytes_are_never_more_than_refused(network: InternImageClassifier, tmp_path: Path) -> None:
    """Pure noise, and a legacy pickle with five wrong bytes: whatever the parser stumbles over."""
    path, rng = tmp_path / "noise.pth", random.Random(0)
    torch.save({"model": to_official(network.state_dict())}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()[:3000]
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        for data in (bytes(damaged), rng.randbytes(rng.randint(1, 200))):
            path.write_bytes(data)
            refused(path, "download or copy it again|refused|not weights by name|not an InternImage")


def test_wrong_suffix(network: InternImageClassifier, tmp_path: Path) -> None:
    path = save_checkpoint(network, tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    refused(path, "not a PyTorch weight file|damaged")
    torch.save({"model": {}}, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "not a readable safetensors file")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{bad", r"a\.safetensors has a description of its model that can't be read: Expecting property name"),
        ("[]", "has a description of its model that can't be read"),
        ("{}", "can't be read: no description of format 1"),
        ('{"format": 2, "model": {}}', "no description of format 1: a newer internimage may have written it"),
        ('{"format": 1, "model": {"chanels": 3}}', r"can't be read: unknown configuration keys \['chanels'\]"),
        ('{"format": 1, "model": {"channels": "3"}}', "can't be read: channels must be made of integers"),
        ('{"format": 1, "model": {"depths": 3}}', "can't be read"),
        ('{"format": 1, "model": {}, "preprocess": {"size": 0}}', "can't be read: size must be"),
    ],
)
def test_damaged_descriptions(description: str, message: str, network: InternImageClassifier, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "a.safetensors", metadata={"internimage": description})
    refused(tmp_path / "a.safetensors", message)


def test_damaged_configuration_beside_the_weights(network: InternImageClassifier, tmp_path: Path) -> None:
    torch.save({"model": to_official(network.state_dict())}, tmp_path / "a.pth")
    (tmp_path / "a.json").write_text("{bad")
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON: Expecting property name"):
        read_checkpoint(tmp_path / "a.pth")
    (tmp_path / "a.json").write_text('["tench", "goldfish"]')
    assert read_checkpoint(tmp_path / "a.pth").card is None


def test_files_outside_the_folder_are_not_read(network: InternImageClassifier, tmp_path: Path) -> None:
    save_checkpoint(network, tmp_path / "secret.safetensors")
    (tmp_path / "hub").mkdir()
    index = tmp_path / "hub" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"model.head.weight": "../secret.safetensors"}}')
    refused(index, "names files outside its folder")


def test_missing_files_and_folders_without_weights(network: InternImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.pth"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"no weights at .*none\.pth: no such file, and no such name"):
        load_checkpoint(network, tmp_path / "none.pth")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", r"has no model\.safetensors; name the weight file itself")
    for name in ("a", "b"):
        save_checkpoint(network, tmp_path / "folder" / f"{name}.safetensors")
    refused(tmp_path / "folder", r"holds 2 \.safetensors files; name the weight file itself")
    refused(tmp_path / "folder" / "a.json", "describes weights; name the weight file itself")
    (tmp_path / "folder" / "a.safetensors").unlink()
    assert read_checkpoint(tmp_path / "folder").path.name == "b.safetensors"
