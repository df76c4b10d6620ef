"""The house rules that a machine can check: sizes, names, rooms, and what must never be in the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "core"}
FOLDER_CAP, FUNCTION_CAP = 13, 60


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository; in an unpacked archive without git, all files below."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for line in listed.stdout.splitlines() if (path := REPOSITORY / line).is_file()]


def cap(path: Path) -> int:
    parts = path.relative_to(REPOSITORY).parts
    if parts[0] == "tests":
        return 300
    if path.suffix == ".cpp":
        return 500
    return 250 if parts[:3] == ("src", "internimage", "tasks") else 400


@pytest.mark.parametrize("path", tracked("*.py", "*.cpp"), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= cap(path), f"longer than {cap(path)} lines: split it along its ideas"
    if path.suffix == ".py" and "tests" not in path.parts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = [item for item in node.body if not _is_docstring(item)]
                length = (node.end_lineno or 0) - (body[0].lineno if body else node.lineno) + 1
                assert length <= FUNCTION_CAP, f"{node.name} has {length} lines"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_folders_are_small_and_names_say_something() -> None:
    folders: dict[Path, set[str]] = {}
    for path in tracked("src", "tests"):
        folders.setdefault(path.parent, set()).add(path.name)
        assert path.stem not in VAGUE, f"{path}: a name should say what is inside"
        assert not VAGUE & set(path.relative_to(REPOSITORY).parts), path
    crowded = {str(folder): len(names) for folder, names in folders.items() if len(names) > FOLDER_CAP}
    assert not crowded, f"more than {FOLDER_CAP} files in a folder: {crowded}"


def test_yaml_holds_only_what_differs() -> None:
    for path in tracked("src/*.yaml"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path


def test_importing_the_package_costs_torch_and_nothing_else() -> None:
    heavy = ("lightning", "timm", "torchvision", "transformers", "matplotlib", "torchmetrics", "jsonargparse")
    code = f"import sys, internimage; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_predicting_needs_the_core_dependencies_only() -> None:
    """Every module that prediction imports works where only the core dependencies are installed."""
    absent = ("lightning", "timm", "torchvision", "transformers", "matplotlib", "torchmetrics", "tensorboard")
    code = (
        "import sys\n"
        f"for name in {absent!r}: sys.modules[name] = None\n"
        "import internimage, internimage.cli.predict, internimage.cli.models, internimage.cli.convert\n"
        "import internimage.cli.doctor, internimage.cli.data\n"
        "internimage.Classifier\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    import internimage

    for name in internimage.__all__:
        assert getattr(internimage, name).__doc__, f"{name} has no docstring"


def test_no_machine_paths_and_no_open_ends() -> None:
    # Written in pieces so that this file does not hold what it forbids.
    forbidden = re.compile("|".join(["/wo" + "rk/", "TO" + "DO", "FIX" + "ME", "pypi" + r"\.org", "python" + "hosted"]))
    for path in tracked("*.py", "*.md", "*.toml", "*.yaml", "*.cff", "Makefile", ".ci"):
        found = forbidden.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path}: {found}"


def test_extras_hold_together() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needs = " ".join(need for listed in extras.values() for need in listed)
    named = {name for names in re.findall(r"internimage-torch\[([\w,]+)\]", needs) for name in names.split(",")}
    assert named <= set(extras)
