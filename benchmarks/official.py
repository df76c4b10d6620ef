"""The official code from a checkout, through its plain-PyTorch path; nothing of it is part of this project.

The checkout's Python files are executed: give a path that you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor, nn

from internimage import InternImageConfig

OFFICIAL_NAME = "official (plain PyTorch)"
_OPERATOR = Path("ops_dcnv3/functions/dcnv3_func.py")
_NETWORK = Path("models/intern_image.py")


def check_checkout(path: Path) -> Path:
    """The folder ``classification`` of a checkout; ``ValueError`` if the path is not one."""
    folder = path / "classification"
    for file in (_OPERATOR, _NETWORK):
        if not (folder / file).is_file():
            raise ValueError(f"{path} is no checkout of OpenGVLab/InternImage: classification/{file} is missing")
    return folder


def describe_checkout(path: Path) -> str:
    """Its commit; without git, the hash of its operator's source."""
    if (path / ".git").exists():
        command = ["git", "-C", str(path), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return f"commit {found.stdout.strip()}"
    source = (check_checkout(path) / _OPERATOR).read_bytes()
    return f"{_OPERATOR.name} with sha256 {hashlib.sha256(source).hexdigest()}"


@cache
def official_operator(path: Path) -> Callable[..., Tensor]:
    """Its DCNv3 in plain PyTorch: (input, offset, mask, then fourteen numbers by position), channels-last."""
    with _importable(check_checkout(path)):
        return importlib.import_module("ops_dcnv3.functions").dcnv3_core_pytorch


def official_network(path: Path, config: InternImageConfig) -> nn.Module:
    """Its classifier for one of our configurations, on its plain-PyTorch operator.

    Raises:
        ModuleNotFoundError: timm is missing, which its network needs.
    """
    # Its constructor prints its settings.
    with redirect_stdout(io.StringIO()):
        return _network_class(path)(**config.to_official() | {"core_op": "DCNv3_pytorch"})


@cache
def _network_class(path: Path) -> Any:
    folder = check_checkout(path)
    with _importable(folder):
        # By its file: the package around it imports networks that need more libraries.
        spec = importlib.util.spec_from_file_location("official_intern_image", folder / _NETWORK)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.InternImage


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """On import its operator asks for its compiled extension and that extension's version; stand-ins answer."""
    packages = ModuleType("pkg_resources")
    packages.__dict__["get_distribution"] = lambda name: SimpleNamespace(version="1.1")
    stand_ins = {"DCNv3": ModuleType("DCNv3"), "pkg_resources": packages}
    before = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    sys.path.insert(0, str(folder))
    # It calls torch.meshgrid and timm in ways that they warn about; that is not news about our code.
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        sys.path.remove(str(folder))
        # Its packages go too, so that another checkout's are not taken for them.
        for name in [name for name in sys.modules if name.partition(".")[0] in {*stand_ins, "ops_dcnv3"}]:
            del sys.modules[name]
        sys.modules.update(before)
