"""The program itself: help, version, unknown commands, the small commands, and what a machine without extras says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import internimage
from internimage.cli.main import _COMMANDS, main
from internimage.model import WEIGHTS, list_models
from internimage.model.weights import DETECTORS, SEGMENTERS
from internimage.ops.dcnv3 import cpu

Program = Callable[..., Any]
COMMANDS = (
    "fit",
    "validate",
    "test",
    "predict",
    "models",
    "convert",
    "export",
    "data",
    "runs",
    "doctor",
    "quickstart",
    "design",
    "visualize",
    "demo",
)


def test_the_installed_program_and_the_module_are_one() -> None:
    script = Path(sys.executable).with_name("internimage")
    version = f"internimage {internimage.__version__}\n"
    for command in ([str(script)], [sys.executable, "-m", "internimage"]):
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert (result.stdout, result.stderr) == (version, "")


def test_help_names_every_command(program: Program) -> None:
    outcome = program("--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert tuple(_COMMANDS) == COMMANDS
    for command in COMMANDS:
        assert f"\n  {command} " in outcome.out, command
    assert program("-h").out == outcome.out
    assert (program().status, program().out) == (2, outcome.out)
    assert program("-V").out == f"internimage {internimage.__version__}\n"


def test_an_unknown_command(program: Program) -> None:
    outcome = program("train", "--config", "x")
    assert outcome.status == 2
    assert outcome.err.startswith("internimage: unknown command 'train'\n")
    assert "usage: internimage COMMAND" in outcome.err
    assert not outcome.out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("fit", "validate", "test")])
def test_every_command_has_help(program: Program, command: str) -> None:
    outcome = program(command, "--help")
    assert outcome.status == 0
    assert f"usage: internimage {command}" in outcome.out
    assert program(command, "--nonsense").status == 2


def test_models_lists_architectures_and_weights(program: Program) -> None:
    outcome = program("models")
    assert (outcome.status, outcome.err) == (0, "")
    for name in (*list_models(), *WEIGHTS, *DETECTORS, *SEGMENTERS):
        assert f"  {name} " in outcome.out, name
    # Table 1 of the paper, in millions of parameters.
    published = {"t": 30, "s": 50, "b": 97, "l": 223, "xl": 335, "h": 1080}
    for name, millions in published.items():
        found = re.search(rf"^  internimage_{name} +([\d,]+) ", outcome.out, re.MULTILINE)
        assert found, name
        assert int(found[1].replace(",", "")) == pytest.approx(millions * 1e6, rel=0.02), name
    for text in ("4-4-18-4", "83.5", "90.1"):
        assert text in outcome.out, text


def test_doctor_finds_every_dtype_right(program: Program) -> None:
    outcome = program("doctor")
    assert outcome.status == 0, outcome
    assert "WRONG" not in outcome.out
    for text in ("float32   right", "bfloat16  right", "float16   right", "lightning 2.", "PyTorch"):
        assert text in outcome.out, text


def test_doctor_names_the_kernel_in_use(program: Program) -> None:
    (line,) = [line for line in program("doctor").out.splitlines() if "C++ kernel:" in line]
    kind, path = line.removeprefix("  C++ kernel: ").split(" vectors, from ")
    assert kind in cpu.INSTRUCTION_SETS
    assert Path(path).is_file()


def test_doctor_notices_a_wrong_kernel(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from internimage.cli import doctor

    right = doctor.dcnv3
    monkeypatch.setattr(doctor, "dcnv3", lambda *tensors, **settings: 1.01 * right(*tensors, **settings))
    outcome = program("doctor")
    assert outcome.status == 1
    assert "float32   WRONG" in outcome.out


def test_an_expected_error_shows_its_origin_on_request(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in program("predict", "nowhere.jpg", "--weights", "x", "--output", "o").refusal()
    monkeypatch.setenv("INTERNIMAGE_DEBUG", "1")
    with pytest.raises(ValueError, match="does not exist"):
        program("predict", "nowhere.jpg", "--weights", "x", "--output", "o2")


def test_an_unexpected_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: Any) -> int:
        raise AssertionError("a bug")

    monkeypatch.setattr("internimage.cli.models.main", broken)
    with pytest.raises(AssertionError, match="a bug"):
        main(["models"])


def test_without_the_extras_training_says_what_to_install_and_the_rest_works(tmp_path: Path) -> None:
    """One process without the training libraries: prediction from a file to pictures, and a clear word from `fit`."""
    code = """
import sys
for name in ("lightning", "timm", "torchvision", "torchmetrics", "tensorboard", "matplotlib", "jinja2"):
    sys.modules[name] = None
import internimage
from internimage.cli.main import main
from internimage.data import export_samples, SAMPLE_LABELS, SAMPLE_PREPROCESS
model = internimage.create_model("internimage_femto", num_classes=10, in_chans=1)
internimage.save_checkpoint(model, "w.safetensors", labels=SAMPLE_LABELS, preprocess=SAMPLE_PREPROCESS)
pictures = list(map(str, export_samples("pictures", "test", 2)))
assert main(["predict", *pictures, "--weights", "w.safetensors", "--output", "out"]) == 0
assert main(["convert", "w.safetensors", "copy.safetensors"]) == 0
assert main(["data", "check", "pictures"]) == 2
assert main(["fit", "--config", "smoke/classification"]) == 2
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == (
        "internimage: fit needs lightning: pip install 'internimage-torch[train]'"
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "predictions.json",
        "predictions.csv",
        "predictions.png",
    }


def test_output_that_nobody_reads_is_no_error() -> None:
    """`internimage models | head -1`."""
    command = f"'{sys.executable}' -m internimage models | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Architectures")
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
