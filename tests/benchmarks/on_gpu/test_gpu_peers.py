"""Other people's code: patched copies, bad paths, and one clear sentence where something is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from benchmarks.on_gpu.checkouts import DCNV4, DEFORMOPS, OFFICIAL, Peer, check, copy_patched, describe, fingerprint
from benchmarks.on_gpu.extensions import Missing, Peers
from benchmarks.on_gpu.measuring import TimeUp
from benchmarks.on_gpu.patches import CPP_PATCHES, PYTHON_PATCHES, patched

from benchmarks.on_gpu import extensions

CUDA = torch.device("cuda")


def make_checkout(root: Path, peer: Peer = OFFICIAL) -> Path:
    landmark = root / peer.landmark
    landmark.parent.mkdir(parents=True)
    landmark.write_text('AT_ERROR("no");\n', encoding="utf-8")
    for folder in peer.folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "LICENSE").touch()
    return root


def make_bare(root: Path, folder: Path) -> Path:
    """The checkout as a bare git directory."""
    make_checkout(root)
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(root), str(folder)], check=True)
    return folder


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("#include <THC/THCAtomics.cuh>", "#include <ATen/cuda/Atomic.cuh>"),
        ('AT_ASSERTM(x.is_contiguous(), "no");', 'TORCH_CHECK(x.is_contiguous(), "no");'),
        ('AT_ERROR("no GPU");', 'TORCH_CHECK(false, "no GPU");'),
        ("if (x.type().is_cuda())", "if (x.is_cuda())"),
        ('DISPATCH(x.type(), "name", f)', 'DISPATCH(x.scalar_type(), "name", f)'),
        ('DISPATCH(\n    x.type(),\n    "name", f)', 'DISPATCH(\n    x.scalar_type(),\n    "name", f)'),
        ("x.data<scalar_t>() + n", "x.data_ptr<scalar_t>() + n"),
        ("x.data_ptr<scalar_t>()", "x.data_ptr<scalar_t>()"),
    ],
)
def test_sources_are_patched(before: str, after: str) -> None:
    assert patched(before, CPP_PATCHES) == after
    assert patched(after, CPP_PATCHES) == after, "a second time changes nothing"


def test_python_files_are_patched() -> None:
    amp = patched("from torch.cuda.amp import custom_bwd, custom_fwd\n", PYTHON_PATCHES)
    names: dict[str, object] = {}
    exec(amp, names)  # the patch itself, written here
    assert callable(names["custom_fwd"])
    assert callable(names["custom_bwd"])
    version = "import pkg_resources\nv = float(pkg_resources.get_distribution('DCNv3').version)\n"
    exec(patched(version, PYTHON_PATCHES), names)
    assert names["v"] == 1.1
    assert patched("from timm.models.layers import DropPath", PYTHON_PATCHES) == "from timm.layers import DropPath"
    assert patched("from typing import Any, override\n", PYTHON_PATCHES) == (
        "from typing import Any\nfrom typing_extensions import override\n"
    )
    assert patched("from typing import override\n", PYTHON_PATCHES) == "\nfrom typing_extensions import override\n"
    generic = "class A[T: Callable[..., Any]]:\nclass B[P: nn.Module](nn.Module):\nclass C(Base[int]):"
    assert patched(generic, PYTHON_PATCHES) == "class A:\nclass B(nn.Module):\nclass C(Base[int]):"


@pytest.mark.parametrize("peer", [OFFICIAL, DCNV4, DEFORMOPS], ids=lambda peer: peer.option)
def test_a_bad_path_is_one_sentence(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder") as absent:
        check(peer, tmp_path / "absent")
    with pytest.raises(ValueError, match="does not hold") as empty:
        check(peer, tmp_path)
    for caught in (absent, empty):
        assert f"--{peer.option}" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bare", [False, True])
def test_a_work_tree_and_a_bare_directory_are_copied_and_patched(bare: bool, tmp_path: Path) -> None:
    path = make_bare(tmp_path / "a", tmp_path / "b") if bare else make_checkout(tmp_path / "a")
    copied = copy_patched(OFFICIAL, check(OFFICIAL, path), tmp_path / "copy")
    assert (copied / OFFICIAL.landmark).read_text(encoding="utf-8") == 'TORCH_CHECK(false, "no");\n'
    if not bare:
        assert "AT_ERROR" in (path / OFFICIAL.landmark).read_text(encoding="utf-8"), "the checkout stays as it is"
    assert ("commit" in describe(OFFICIAL, path)) == bare
    assert str(tmp_path) not in describe(OFFICIAL, path)
    assert fingerprint(OFFICIAL, path) == fingerprint(OFFICIAL, path)


def test_a_changed_work_tree_is_another_build(tmp_path: Path) -> None:
    make_bare(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "a"
    clean, other = fingerprint(OFFICIAL, path), path / "classification/ops_dcnv3/src/more.cu"
    assert describe(OFFICIAL, path) == describe(OFFICIAL, tmp_path / "b")
    other.write_text("one", encoding="utf-8")
    first = fingerprint(OFFICIAL, path)
    assert describe(OFFICIAL, path).endswith(" with changes")
    other.write_text("two", encoding="utf-8")
    second = fingerprint(OFFICIAL, path)
    assert len({clean, first, second}) == 3
    other.unlink()
    (path / "classification/ops_dcnv3/DCNv3.so").write_text("built there", encoding="utf-8")
    (path / "README.md").write_text("not compiled", encoding="utf-8")
    assert fingerprint(OFFICIAL, path) == clean


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that can build, and the folder of builds."""
    from torch.utils import cpp_extension

    monkeypatch.setattr(extensions, "cuda_home", lambda: tmp_path / "toolkit")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    for name in ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")
    return tmp_path / "cache"


def test_a_build_that_is_stopped_leaves_nothing_to_load(
    nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(name: str, sources: list[str], *, build_directory: str, **options: Any) -> ModuleType:
        (Path(build_directory) / f"{name}.so").write_bytes(b"half a libr")
        raise TimeUp

    monkeypatch.setattr("torch.utils.cpp_extension.load", stopped)
    with pytest.raises(TimeUp):
        extensions.build_extension("DCNv3", tmp_path, nvcc / "build", "9.0")
    assert list(nvcc.iterdir()) == []


def test_a_build_that_is_done_is_taken_again(nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, sources: list[str], *, build_directory: str, **options: Any) -> ModuleType:
        (Path(build_directory) / "vision.o").touch()
        (Path(build_directory) / f"{name}.so").write_bytes(b"a library")
        return ModuleType(name)

    monkeypatch.setattr("torch.utils.cpp_extension.load", load)
    module = extensions.build_extension("DCNv3", tmp_path, nvcc / "build", "9.0")
    assert module.__file__ == str(nvcc / "build/DCNv3.so")
    assert [path.name for path in nvcc.rglob("*")] == ["build", "DCNv3.so"]
    loaded: list[Path] = []
    monkeypatch.setattr(extensions, "_load_file", lambda file, name: loaded.append(file))
    extensions.build_extension("DCNv3", tmp_path, nvcc / "build", "9.0")
    assert loaded == [nvcc / "build/DCNv3.so"]


def test_missing_peers_say_why(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "a")
    with pytest.raises(Missing, match=r"^no path given \(--official PATH\)$"):
        _ = Peers({}, tmp_path, CUDA).official
    with pytest.raises(Missing, match=r"^its kernel needs a GPU$"):
        _ = Peers({"official": checkout}, tmp_path, torch.device("cpu")).official
    with pytest.raises(Missing, match=r"--dcnv4 PATH"):
        Peers({}, tmp_path, CUDA).flash_network("t")


def test_a_failed_build_is_told_in_a_line_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def fail(name: str, *rest: object) -> None:
        tries.append(name)
        raise RuntimeError("Error building extension 'DCNv3': first line\nsecond line")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(extensions, "build_extension", fail)
    peers = Peers({"official": make_checkout(tmp_path / "a")}, tmp_path / "cache", CUDA)
    for _ in range(2):
        with pytest.raises(Missing) as caught:
            _ = peers.official
        assert str(caught.value) == "RuntimeError: Error building extension 'DCNv3': first line"
    assert tries == ["DCNv3"]


def test_without_nvcc_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "cuda_home", lambda: None)
    with pytest.raises(Missing, match="there is no nvcc"):
        extensions.build_extension("DCNv3", tmp_path, tmp_path / "build", "9.0")


def test_toolkit_without_headers_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").touch()
    monkeypatch.setattr(extensions, "_CUDA_HOMES", ())
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert extensions.cuda_home() is None
    (tmp_path / "include").mkdir()
    (tmp_path / "include/cuda_runtime_api.h").touch()
    assert extensions.cuda_home() == tmp_path
