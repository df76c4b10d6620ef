"""Successive halving on made-up accuracies: who goes on, and what a stopped search finds again."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("optuna")

from internimage.cli.design.study import Study
from internimage.cli.design.trials import Trained, Trial

DESIGNS = {"a": 0.5, "b": 0.4, "c": 0.6, "d": 0.3, "e": 0.7, "f": 0.2}


def train(study: Study, name: str, epochs: int, folder: Path) -> Trained:
    """Its accuracy grows by 0.01 an epoch; ended where the study says so."""
    is_hopeless, run = study.judge(name), folder / f"{name}.0"
    run.mkdir(exist_ok=True)
    accuracy: list[float] = []
    for epoch in range(1, epochs + 1):
        accuracy.append(DESIGNS[name] + epoch / 100)
        if is_hopeless(epoch, accuracy[-1]) and epoch < epochs:
            break
    lines = ["epoch,val/accuracy,seconds", *(f"{i},{value:.2f},{i + 1}" for i, value in enumerate(accuracy))]
    (run / "metrics.csv").write_text("\n".join(lines))
    is_cut = len(accuracy) < epochs
    return Trained(Trial(name, run, (), epochs), tuple(accuracy), 1.0, is_cut=is_cut)


def test_the_better_half_goes_on(tmp_path: Path) -> None:
    """Reduction 2, rungs after 1, 2, 4 epochs: one goes on if it is in the better half of those that came so far."""
    study = Study(tmp_path, list(DESIGNS), 2)
    lengths: dict[str, int] = {}
    for name in study.waiting():
        trained = train(study, name, 4, tmp_path)
        lengths[name] = len(trained.accuracy)
        study.tell(name, trained)
    # a is alone; b the worse of two; c the best of three; d the last of four; e the best of five; f the last of six.
    assert lengths == {"a": 4, "b": 1, "c": 4, "d": 1, "e": 4, "f": 1}
    assert study.judged == list(DESIGNS)


def test_a_stopped_search_goes_on(tmp_path: Path) -> None:
    study = Study(tmp_path, list(DESIGNS), 2)
    waiting = study.waiting()
    for name in ("a", "b"):
        assert next(waiting) == name
        study.tell(name, train(study, name, 4, tmp_path))
    assert next(waiting) == "c"
    assert not study.judge("c")(1, 0.61)
    # Here the process ends, in the middle of c.
    again = Study(tmp_path, list(DESIGNS), 2)
    assert again.judged == ["a", "b"]
    kept = {name: again.recall(Trial(name, tmp_path / f"{name}.0", (), 4)) for name in again.judged}
    assert (kept["a"].is_cut, kept["a"].accuracy) == (False, (0.51, 0.52, 0.53, 0.54))
    assert (kept["b"].is_cut, kept["b"].accuracy) == (True, (0.41,))
    rest = []
    for name in again.waiting():
        rest.append(name)
        again.tell(name, train(again, name, 4, tmp_path))
    assert sorted(rest) == ["c", "d", "e", "f"]
    assert sorted(Study(tmp_path, list(DESIGNS), 2).judged) == list(DESIGNS)
    assert not list(Study(tmp_path, list(DESIGNS), 2).waiting())


def test_a_failed_training_is_not_judged(tmp_path: Path) -> None:
    study = Study(tmp_path, ["a"], 2)
    assert list(zip(study.waiting(), range(1), strict=False)) == [("a", 0)]
    study.tell("a", Trained(Trial("a", tmp_path, (), 4), (), 0.0, problem="diverged"))
    assert study.judged == []
    assert list(zip(study.waiting(), range(1), strict=False)) == []
    assert next(Study(tmp_path, ["a"], 2).waiting()) == "a", "another call tries again"
