"""The peers' kernels and networks, built and imported from patched copies: each, or the reason why it is not there."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from benchmarks.on_gpu.checkouts import DCNV4, DEFORMOPS, OFFICIAL, Peer, copy_patched, fingerprint
from internimage import InternImageConfig

_CUDA_HOMES = ("/usr/local/cuda", "/opt/cuda")
# Name of the module and place of its sources.
_EXTENSIONS = {
    OFFICIAL.option: ("DCNv3", "classification/ops_dcnv3/src"),
    DCNV4.option: ("dcnv4_ext", "DCNv4_op/src"),
}

# From classification/configs/flash_intern_image_{t,b}_1k_224.yaml of OpenGVLab/DCNv4 at 4b848f7.
_FLASH: dict[str, dict[str, Any]] = {
    "t": {"offset_scale": 1.0},
    "b": {"offset_scale": 0.5, "layer_scale": 1e-5, "post_norm": True, "dw_kernel_size": 3},
}


class Missing(Exception):  # noqa: N818 (nothing has failed: somebody can't take part)
    """Why a peer can't take part, in one sentence without a full stop."""


@dataclass
class Peers:
    """Everybody else, made on first use; a property raises `Missing` with the reason where there is nothing.

    Args:
        paths: checkouts by the name of their option.
        cache: folder of patched copies and builds; those of another version or architecture stay beside them.
        device: CUDA kernels need a GPU.
    """

    paths: dict[str, Path | None]
    cache: Path
    device: torch.device
    _failed: dict[str, str] = field(default_factory=dict)

    @cached_property
    def official(self) -> Any:
        """``DCNv3Function`` of the official extension."""
        with self._explained("official"):
            folder = self._copy(OFFICIAL) / "classification"
            sys.modules["DCNv3"] = self._build(OFFICIAL)
            with _on_path(folder):
                return importlib.import_module("ops_dcnv3.functions").DCNv3Function

    @cached_property
    def dcnv4(self) -> Any:
        """``DCNv4Function`` of the DCNv4 extension, with its own tables of launch configurations."""
        with self._explained("dcnv4"):
            folder = self._copy(DCNV4) / "DCNv4_op"
            # Its Python files take the extension from their package.
            sys.modules["DCNv4.ext"] = self._build(DCNV4)
            with _on_path(folder):
                return importlib.import_module("DCNv4.functions").DCNv4Function

    @cached_property
    def deformops(self) -> Callable[..., torch.Tensor]:
        """``deformops.registry.attn``: single-scale sampling, in Triton."""
        with self._explained("deformops"), _on_path(self._copy(DEFORMOPS)):
            return importlib.import_module("deformops.registry").attn

    def official_network(self, variant: str) -> nn.Module:
        """The official classifier on its own extension."""
        _ = self.official
        with self._explained("official network"):
            module = _load_file(self._copied(OFFICIAL) / "classification/models/intern_image.py")
            with redirect_stdout(io.StringIO()):
                return module.InternImage(**InternImageConfig.from_variant(variant).to_official())

    def flash_network(self, variant: str) -> nn.Module:
        """FlashInternImage: InternImage with DCNv4 in place of DCNv3."""
        _ = self.dcnv4
        with self._explained("FlashInternImage"):
            module = _load_file(self._copied(DCNV4) / "classification/models/flash_intern_image.py")
            config = InternImageConfig.from_variant(variant)
            sizes = {"channels": config.channels, "depths": list(config.depths), "groups": list(config.groups)}
            with redirect_stdout(io.StringIO()):
                return module.FlashInternImage(drop_path_rate=0.0, **sizes, **_FLASH[variant])

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn whatever fails into a reason, and say the same the next time without another try."""
        if name in self._failed:
            raise Missing(self._failed[name])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Missing as reason:
            self._failed[name] = str(reason)
            raise
        except Exception as error:
            self._failed[name] = in_a_line(error)
            raise Missing(self._failed[name]) from error

    def _copy(self, peer: Peer, *, needs_gpu: bool = True) -> Path:
        path = self.paths.get(peer.option)
        if path is None:
            raise Missing(f"no path given (--{peer.option} PATH)")
        if needs_gpu and self.device.type != "cuda":
            raise Missing("its kernel needs a GPU")
        return copy_patched(peer, path, self._copied(peer))

    def _copied(self, peer: Peer) -> Path:
        path = self.paths[peer.option]
        assert path is not None
        return self.cache / f"{peer.option}-{fingerprint(peer, path)}"

    def _build(self, peer: Peer, architecture: str | None = None) -> ModuleType:
        """The compiled extension, from sources that lie in the cache already."""
        if architecture is None:
            architecture = "{}.{}".format(*torch.cuda.get_device_capability(self.device))
        name, sources = _EXTENSIONS[peer.option]
        copied = self._copied(peer)
        folder = copied.with_name(f"{copied.name}-{build_key(architecture)}")
        return build_extension(name, copied / sources, folder, architecture)

    def build(self, peer: Peer, architecture: str) -> Path:
        """Compile for a GPU that need not be here; the shared library's file."""
        with self._explained(f"build {peer.option}"):
            self._copy(peer, needs_gpu=False)
            file = self._build(peer, architecture).__file__
            assert file is not None
            return Path(file)


def build_key(architecture: str) -> str:
    """What a compiled extension depends on besides its sources."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return f"torch{torch.__version__.replace('+', '-')}-{python}-{architecture}"


def build_extension(name: str, sources: Path, folder: Path, architecture: str) -> ModuleType:
    """Compile with nvcc for one architecture, or load what was compiled into ``folder`` before.

    Raises:
        Missing: no nvcc, or it does not compile.
    """
    if (folder / f"{name}.so").is_file():
        return _load_file(folder / f"{name}.so", name)
    home = cuda_home()
    if home is None:
        raise Missing("there is no nvcc to build its extension with (set CUDA_HOME)")
    if shutil.which("ninja") is None:
        raise Missing("there is no ninja to build its extension with")
    # Read when this module is imported.
    os.environ["CUDA_HOME"], os.environ["TORCH_CUDA_ARCH_LIST"] = str(home), architecture
    from torch.utils import cpp_extension

    cpp_extension.CUDA_HOME = str(home)
    folder.parent.mkdir(parents=True, exist_ok=True)
    files = [*sources.glob("*.cpp"), *sources.glob("cpu/*.cpp"), *sources.glob("cuda/*.cu")]
    print(f"building {name} for compute capability {architecture} (minutes, once per PyTorch version) ...", flush=True)
    # Elsewhere first: a linker that is stopped leaves a part of a library, which every later run would load.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as draft:
        module: Any = cpp_extension.load(
            name,
            sorted(map(str, files)),
            extra_include_paths=[str(sources), *map(str, library_headers(home))],
            # As in their setup.py.
            extra_cflags=["-DWITH_CUDA"],
            extra_cuda_cflags=["-DWITH_CUDA", "-DCUDA_HAS_FP16=1", "-O3"],
            build_directory=draft,
            with_cuda=True,
        )
        # Of the folder only the library is needed again, and it stays loaded.
        folder.mkdir(exist_ok=True)
        module.__file__ = str((Path(draft) / f"{name}.so").replace(folder / f"{name}.so"))
    return cast(ModuleType, module)


def cuda_home() -> Path | None:
    """The CUDA toolkit: CUDA_HOME, or where nvcc lies, or the usual places; it must have headers as well."""
    found = shutil.which("nvcc")
    guesses = [os.environ.get("CUDA_HOME"), str(Path(found).resolve().parent.parent) if found else None, *_CUDA_HOMES]
    for guess in guesses:
        if guess and (Path(guess) / "bin/nvcc").is_file() and (Path(guess) / "include/cuda_runtime_api.h").is_file():
            return Path(guess)
    return None


def library_headers(home: Path) -> list[Path]:
    """Where PyTorch's headers find cuBLAS and the like, if the toolkit came without them: beside PyTorch itself."""
    if (home / "include/cublas_v2.h").is_file():
        return []
    packages = Path(torch.__file__).resolve().parent.parent / "nvidia"
    return sorted({header.parent for header in packages.glob("*/include/cu[bs]*.h")})


def in_a_line(error: BaseException) -> str:
    """An error's kind and first line, short enough for a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"
    return (text[:200] + " ...") if len(text) > 200 else text.rstrip(".")


def _load_file(file: Path, name: str | None = None) -> ModuleType:
    if file.suffix == ".py" and find_spec("timm") is None:
        raise Missing("its network needs timm, which is not installed")
    # By its file: the packages around the networks import more libraries than they need.
    spec = importlib.util.spec_from_file_location(name or f"peer_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _on_path(file.parent.parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
