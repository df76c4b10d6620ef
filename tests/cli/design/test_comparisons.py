"""``design ablate`` and ``design search`` from the command line to their pages, with real trainings of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from internimage.cli.main import main
from internimage.model import read_checkpoint
from internimage.structures import SearchedDesign, TrainedForm

SHORT = [
    *("--config", "smoke/classification", "--epochs", "1", "--jobs", "2"),
    *("--fit", "model.init_args.optimizer.warmup_epochs=0", "trainer.limit_val_batches=1"),
]


def test_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One form, the furthest from DCNv3: a training costs ten seconds, most of them for its start and its page."""
    run = tmp_path / "ablation"
    arguments = ["design", "ablate", "--design", "8", "4", "1", "1", "--seeds", "1", "--run", str(run), *SHORT]
    assert main([*arguments, "--forms", "DCNv2"]) == 0
    (form,) = [TrainedForm.from_dict(each) for each in json.loads((run / "ablation.json").read_text())["forms"]]
    assert form.name == "DCNv2"
    assert [len(each) for each in form.accuracy] == [1]
    assert [len(each) for each in form.gradient_norms] == [3], "one norm for each of three steps"
    assert form.problems == (None,)
    card = read_checkpoint(run / "DCNv2.0" / "model.safetensors").card
    assert card is not None
    assert (card.config.channels, card.config.depths, card.config.groups) == (8, (1, 1, 1, 1), (1,) * 4)
    assert (card.config.shared_weights, card.config.normalize) == (False, "sigmoid")
    assert "| DCNv2 |" in (run / "ablation.md").read_text()
    assert (run / "ablation.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "1/1" in said
    assert "gradient: median norm" in said
    assert main(arguments) == 2
    assert "add --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two candidates, the better one with a second seed; then the same command finds all of it done."""
    run = tmp_path / "search"
    space = ["--budget", "150K", "--channels", "8", "--depths", "1", "--group_widths", "4", "8"]
    arguments = ["design", "search", *space, "--finalists", "1", "--seeds", "2", "--run", str(run), *SHORT]
    assert main(arguments) == 0
    found = [SearchedDesign.from_dict(each) for each in json.loads((run / "search.json").read_text())["designs"]]
    assert {each.design for each in found} == {(8, 4, 1, 2), (8, 8, 1, 4)}
    assert sorted(len(each.accuracy) for each in found) == [1, 2]
    assert all(abs(each.parameters / 150_000 - 1) < 0.25 for each in found)
    assert (run / "search.png").stat().st_size > 10_000
    assert "InternImageConfig.stacked(8, " in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
    assert len(before) == 3
    assert main([*arguments, "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")} == before, (
        "nothing is trained twice"
    )
    again = json.loads((run / "search.json").read_text())["designs"]
    assert [SearchedDesign.from_dict(each) for each in again] == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablate", "--forms", "DCNv5"], "unknown form 'DCNv5'; choose from DCNv3, own weights"),
        (["ablate", "--seeds", "0"], "--seeds must be at least 1"),
        (["ablate", "--design", "48", "32", "1", "2"], r"group_width must divide channels, got 32 and 48; the nearest"),
        (["search", "--reduction", "1"], "--reduction at least 2"),
        (["search", "--budget", "1K"], "no design of this space is within 25% of 1,000 parameters; the nearest legal"),
        (["search", "--budget", "lots"], "--budget must be a positive number"),
        (["count", "--size", "0"], "--size must be at least 1"),
        (["count", "--variant", "x"], "unknown model 'x'; choose from"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["design", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["design", "count", "--variant", "pico", "--size", "64"]) == 0
    said = capsys.readouterr().out
    assert "InternImage-pico" in said
    assert "88.9%" in said
    assert "42.0% of the parameters and 84.2% of the memory" in said
