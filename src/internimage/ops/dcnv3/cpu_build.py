"""Where the C++ kernel's library comes from: the wheel, the user's cache, or a compiler on first use."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from filelock import FileLock

# More flags for the compiler, and another compiler than the first of these on the path.
FLAGS_VARIABLE, COMPILER_VARIABLE, CACHE_VARIABLE = "INTERNIMAGE_CXXFLAGS", "CXX", "INTERNIMAGE_CACHE"
_COMPILERS = ("g++", "clang++", "c++")
_HERE = Path(__file__).parent
_PARTS = ("_level.h", "_vectors.h", "_kernel.h", "_branch.h", "_attention.h", "_attention_op.h")
_SOURCES = tuple(_HERE / "cpp" / f"cpu{name}" for name in (".cpp", *_PARTS))
# The stable ABI of PyTorch 2.10; fused multiply-adds, but NaN and infinity as they are.
_FLAGS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
)
_SECONDS = 300


class BuildError(Exception):
    """Why there is no library, in one sentence that says what to do."""


def find_or_build() -> Path:
    """The library for this PyTorch and processor: prebuilt, from the cache, or compiled now.

    Raises:
        BuildError: there is none and none can be made.
    """
    if prebuilt_path().is_file() and not os.environ.get(FLAGS_VARIABLE):
        return prebuilt_path()
    compiler = find_compiler()
    # A library for this processor alone takes half the time to compile.
    unused = "WITHOUT_AVX2" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "WITHOUT_AVX512"
    flags = [f"-D{unused}", *shlex.split(os.environ.get(FLAGS_VARIABLE, ""))]
    target = _cache_folder() / _key(compiler, flags) / "cpu.so"
    if not target.is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # The first of many processes compiles, the others wait for it.
            with FileLock(target.with_suffix(".lock")):
                if not target.is_file():
                    compile_library(target, compiler, flags)
        except OSError as error:
            where = f"{target.parent} can't be written to ({error.strerror})"
            raise BuildError(f"{where}; set ${CACHE_VARIABLE} to a folder of yours") from None
    return target


def prebuilt_path() -> Path:
    """Where a wheel has its library; the name tells the sources that it was made from."""
    return _HERE / f"cpu_{_digest(*(source.read_bytes() for source in _SOURCES))}.so"


def find_compiler() -> str:
    """The command of $CXX, or the first compiler on the path; raises `BuildError` if there is none."""
    if wanted := os.environ.get(COMPILER_VARIABLE):
        return wanted
    if os.name == "nt":
        raise BuildError("there is no C++ kernel for Windows yet")
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise BuildError("there is no C++ compiler; install g++ 11 or newer (Debian, Ubuntu: apt install g++)")
    return found


def compile_library(target: Path, compiler: str, flags: list[str]) -> None:
    """Compile to ``target``, which appears whole or not at all; raises `BuildError` with the compiler's first error."""
    torch_folder = Path(torch.__file__).parent
    descriptor, partial = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(descriptor)
    command = [*shlex.split(compiler), *_FLAGS, *flags, f"-I{torch_folder / 'include'}", str(_SOURCES[0])]
    command += ["-o", partial, f"-L{torch_folder / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
            raise BuildError(f"{compiler} failed: {lines[0].strip()[:300]}; g++ 11 or newer is needed")
        Path(partial).chmod(0o755)
        Path(partial).replace(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{compiler} can't be run ({error}); set ${COMPILER_VARIABLE} to a C++ compiler") from None
    finally:
        Path(partial).unlink(missing_ok=True)


def _cache_folder() -> Path:
    own = os.environ.get(CACHE_VARIABLE)
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "internimage"
    return base.expanduser() / "kernels"


def _key(compiler: str, flags: list[str]) -> str:
    """A folder name that changes with all that the library is made from."""
    try:
        version = subprocess.run(
            [*shlex.split(compiler), "--version"], capture_output=True, timeout=_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{compiler} can't be run ({error}); set ${COMPILER_VARIABLE} to a C++ compiler") from None
    sources = [source.read_bytes() for source in _SOURCES]
    settings = [compiler, torch.__version__, platform.machine(), *_FLAGS, *flags]
    return _digest(version, *sources, *(text.encode() for text in settings))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
