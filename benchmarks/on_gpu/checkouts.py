"""The peers' code: found in a checkout, copied to a temporary folder, patched there. None of it stays in this project.

A checkout is a work tree or a bare git directory. Its code is compiled and executed: give one that you trust.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.on_gpu.patches import CPP_PATCHES, PYTHON_PATCHES, patch_folder

# Of a checkout's folders nobody copies these, nor do they count as its sources.
_LEFT_OUT = ("*.so", "__pycache__")


@dataclass(frozen=True)
class Peer:
    """A repository that the benchmark can use.

    Args:
        option: of the command line, without dashes.
        repository: where a person finds it.
        folders: what is copied, relative to the checkout.
        landmark: a file that tells the checkout from any other folder.
    """

    option: str
    repository: str
    folders: tuple[str, ...]
    landmark: str


OFFICIAL = Peer(
    "official",
    "a checkout of OpenGVLab/InternImage",
    ("classification/ops_dcnv3", "classification/models"),
    "classification/ops_dcnv3/src/vision.cpp",
)
DCNV4 = Peer(
    "dcnv4",
    "a checkout of OpenGVLab/DCNv4",
    ("DCNv4_op", "classification/models"),
    "DCNv4_op/DCNv4/functions/dcnv4_func.py",
)
DEFORMOPS = Peer(
    "deformops", "the Python package deformops, version 3, unpacked", ("deformops",), "deformops/registry/attn.py"
)


def check(peer: Peer, path: Path) -> Path:
    """The path itself; ``ValueError`` with one sentence if it holds something else."""
    if not path.is_dir():
        raise ValueError(f"--{peer.option} {path} is no folder; give {peer.repository}")
    if (path / peer.landmark).is_file():
        return path
    found = _git(path, "cat-file", "-e", f"HEAD:{peer.landmark}") if _is_bare(path) else None
    if found is None or found.returncode != 0:
        raise ValueError(f"--{peer.option} {path} does not hold {peer.repository}: {peer.landmark} is missing")
    return path


def describe(peer: Peer, path: Path) -> str:
    """Its commit, and whether its sources are others; without git, the hash of its landmark."""
    if _is_bare(path) or (path / ".git").exists():
        found = _git(path, "rev-parse", "HEAD")
        if found.returncode == 0:
            changed = not _is_bare(path) and _git(path, "status", "--porcelain", "--", *peer.folders).stdout.strip()
            return f"{_short(peer)}, commit {found.stdout.decode().strip()}{' with changes' if changed else ''}"
    source = (path / peer.landmark).read_bytes() if (path / peer.landmark).is_file() else b""
    return f"{_short(peer)}, {Path(peer.landmark).name} with sha256 {hashlib.sha256(source).hexdigest()[:16]}"


def fingerprint(peer: Peer, path: Path) -> str:
    """Short and the same for the same sources and patches: the name of a cached build."""
    # A bare directory holds what its commit says, a work tree what somebody may have changed.
    commit = describe(peer, path) if _is_bare(path) else ""
    found = hashlib.sha256(f"{peer.option} {commit} {CPP_PATCHES} {PYTHON_PATCHES}".encode())
    for file in sorted(file for folder in peer.folders for file in (path / folder).rglob("*") if file.is_file()):
        name = file.relative_to(path)
        if not any(fnmatch(part, pattern) for pattern in _LEFT_OUT for part in name.parts):
            found.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:12]


def copy_patched(peer: Peer, path: Path, target: Path) -> Path:
    """Copy the folders that the benchmark needs into ``target`` and patch them; ``target`` is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if (path / peer.landmark).is_file():
        for folder in peer.folders:
            if (path / folder).is_dir():
                shutil.copytree(path / folder, target / folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        for card in path.glob("*.dist-info"):
            shutil.copytree(card, target / card.name)
    else:
        archive = _git(path, "archive", "--format=tar", "HEAD", *peer.folders)
        archive.check_returncode()
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(target, filter="data")
    patch_folder(target)
    return target


def _short(peer: Peer) -> str:
    return peer.repository.removeprefix("a checkout of ").removeprefix("the Python package ")


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def _git(path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, check=False)
    except OSError:
        return subprocess.CompletedProcess(arguments, 127, b"", b"git is not installed")
