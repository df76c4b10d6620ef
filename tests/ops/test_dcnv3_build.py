"""How the C++ kernel comes to be: compiled once, by one of many processes, anew for any change, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from internimage.ops.dcnv3 import cpu_build
from internimage.ops.dcnv3.cpu_build import BuildError

USE = """
import torch, warnings
from internimage import dcnv3, explain_dcnv3
tensors = torch.ones(1, 4, 4, 2, 3), torch.zeros(1, 4, 4, 2, 9, 2), torch.zeros(1, 4, 4, 2, 9)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert float(dcnv3(*tensors, normalize="softmax")[0, 1, 1, 0, 0]) == 1.0
print(len(caught), *(str(warning.message) for warning in caught))
print(explain_dcnv3(*tensors))
"""


def program(cache: Path, **environment: str) -> subprocess.Popen[str]:
    values = {**os.environ, "INTERNIMAGE_CACHE": str(cache), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", USE], env=values, stdout=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out


def test_of_many_processes_one_compiles(tmp_path: Path) -> None:
    counting = tmp_path / "counting-compiler"
    counting.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec g++ "$@"\n')
    counting.chmod(0o755)
    # Without optimisation, for this test's sake.
    start = [program(tmp_path / "cache", CXX=str(counting), INTERNIMAGE_CXXFLAGS="-O0") for _ in range(3)]
    for process in start:
        out = output(process)
        assert out.startswith("0\n"), out
        assert "cpu        runs" in out
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sum("cpu.cpp" in call for call in calls) == 1
    assert len(list((tmp_path / "cache").rglob("*.so"))) == 1
    # A fourth finds it.
    assert "cpu        runs" in output(program(tmp_path / "cache", CXX=str(counting), INTERNIMAGE_CXXFLAGS="-O0"))
    assert sum("cpu.cpp" in call for call in (tmp_path / "calls").read_text().splitlines()) == 1


def test_every_instruction_set_of_a_wheel(tmp_path: Path) -> None:
    """A library made for this processor alone leaves one out, so the other tests don't see it."""
    flags = "-O1 -UWITHOUT_AVX2 -UWITHOUT_AVX512"
    environment = {**os.environ, "INTERNIMAGE_CACHE": str(tmp_path), "INTERNIMAGE_CXXFLAGS": flags}
    file = Path(__file__).with_name("test_dcnv3_cpu.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), "-k", "group_width"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_without_a_compiler_the_reference_runs_and_says_so_once(tmp_path: Path) -> None:
    out = output(program(tmp_path, PATH=str(tmp_path)))
    assert out.startswith("1 DCNv3 runs on the slow reference: there is no C++ compiler; install g++ 11 or newer")
    assert "cpu        can't run: there is no C++ compiler" in out
    assert "reference  runs" in out


def test_a_compiler_that_fails_is_named_with_its_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] || { echo 'x.cpp:1: error: no such thing' >&2; exit 1; }\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("INTERNIMAGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match=r"broken failed: x\.cpp:1: error: no such thing; g\+\+ 11 or newer"):
        cpu_build.find_or_build()
    assert not list(tmp_path.rglob("*.so"))
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    with pytest.raises(BuildError, match=r"missing can't be run .*set \$CXX to a C\+\+ compiler"):
        cpu_build.find_or_build()


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTERNIMAGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildError, match=r"can't be written to \(Not a directory\); set \$INTERNIMAGE_CACHE"):
        cpu_build.find_or_build()


def test_whatever_it_is_made_from_changes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(*flags: str) -> str:
        return cpu_build._key("g++", list(flags))

    usual = key()
    assert key() == usual
    assert key("-g") != usual
    prebuilt = cpu_build.prebuilt_path()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        assert key() != usual
        # One binary serves every PyTorch; only what is compiled here is tied to one.
        assert cpu_build.prebuilt_path() == prebuilt
    with monkeypatch.context() as patch:
        changed = tmp_path / "cpu.cpp"
        changed.write_bytes(cpu_build._SOURCES[0].read_bytes() + b"\n")
        patch.setattr(cpu_build, "_SOURCES", (changed, cpu_build._SOURCES[1]))
        assert key() != usual
        assert cpu_build.prebuilt_path() != prebuilt
    other = tmp_path / "g++"
    other.write_text("#!/bin/sh\necho another version\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert key() != usual


def test_a_wheels_library_goes_before_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "cpu_0123.so"
    monkeypatch.setattr(cpu_build, "prebuilt_path", lambda: library)
    monkeypatch.setenv("CXX", "no-compiler")
    with pytest.raises(BuildError):
        cpu_build.find_or_build()
    library.touch()
    assert cpu_build.find_or_build() == library
