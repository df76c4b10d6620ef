"""A wheel with the C++ kernel in it (`make wheel`); plain `pip install` leaves that to the first use."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Set by `make wheel`: compiling needs PyTorch in the environment that builds.
_WANTED = "INTERNIMAGE_WHEEL_KERNEL"
_OPERATOR = Path("internimage/ops/dcnv3")


class KernelHook(BuildHookInterface[Any]):
    """Compiles for every instruction set and tags the wheel with its platform; one serves every Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the library to a wheel; an editable installation needs none."""
        if version == "editable" or not os.environ.get(_WANTED):
            return
        source = Path(self.root, "src", _OPERATOR, "cpu_build.py")
        spec = importlib.util.spec_from_file_location("cpu_build", source)
        assert spec is not None
        assert spec.loader is not None
        cpu_build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cpu_build)
        library = Path(self.directory, cpu_build.prebuilt_path().name)
        library.parent.mkdir(parents=True, exist_ok=True)
        cpu_build.compile_library(library, cpu_build.find_compiler(), [])
        build_data["force_include"][str(library)] = str(_OPERATOR / library.name)
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The library is in the wheel now."""
        for library in Path(self.directory).glob("cpu_*.so"):
            library.unlink()
