"""``internimage design ablate``: the three changes from DCNv2 to DCNv3, each undone and trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.design.options import accuracy_in_words, describe_run
from internimage.cli.design.results import print_table, results_page, write_results
from internimage.cli.design.trials import (
    Progress,
    Stopped,
    Trained,
    Trial,
    add_training_options,
    comparison_folder,
    fit_arguments,
    image_size,
    recipe_model_options,
    train_all,
)
from internimage.model import InternImageConfig
from internimage.model.design.cost import activation_bytes, parameter_count
from internimage.structures import TrainedForm

_STEM = "ablation"
# Name -> what differs from the paper's layer. Each row undoes one change, the last one all of them.
FORMS: dict[str, dict[str, Any]] = {
    "DCNv3": {},
    "own weights": {"shared_weights": False},
    "one group": {"groups": (1, 1, 1, 1)},
    "sigmoid": {"normalize": "sigmoid"},
    "no normalisation": {"normalize": "none"},
    "DCNv2": {"shared_weights": False, "groups": (1, 1, 1, 1), "normalize": "sigmoid"},
}


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage design ablate",
        description="Train DCNv3 and the same with each of its three changes undone, under equal conditions.",
    )
    design = "C1, channels per group, L1 = L2 = L4 and L3 of the network"
    found.add_argument("--design", type=int, nargs=4, default=[16, 8, 1, 3], metavar="N", help=design)
    found.add_argument("--seeds", type=int, default=3, help="trainings of every form, with seeds 0, 1, ...")
    found.add_argument("--forms", type=str, nargs="+", default=list(FORMS), help=f"which of {', '.join(FORMS)}")
    found.add_argument("--num_classes", type=int, default=10, help="of the data, for the count of parameters")
    add_training_options(found, "runs/ablation")
    return found


def run(options: Namespace) -> int:
    """Train, and say what came of it; returns the exit status."""
    if unknown := [each for each in options.forms if each not in FORMS]:
        raise ValueError(f"unknown form {unknown[0]!r}; choose from {', '.join(FORMS)}")
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    base = InternImageConfig.stacked(*options.design, num_classes=options.num_classes)
    base = replace(base, **recipe_model_options(options))
    settings = {"what": "ablation", "design": options.design}
    with comparison_folder(options, settings) as folder:
        trials = list(_trials(options, base, folder))
        progress, ended = Progress(len(trials)), dict[Path, Trained]()

        def done(trained: Trained) -> None:
            ended[trained.trial.run] = trained
            progress.tell(trained)

        try:
            train_all(iter(trials), options.jobs, done)
        except Stopped:
            print(f"stopped; the same command with --resume goes on in {folder}")
            return 130
        size = image_size(ended.values())
        forms = [_form(name, replace(base, **FORMS[name]), size, folder, ended) for name in options.forms]
        return _report(options, forms, folder)


def _trials(options: Namespace, base: InternImageConfig, folder: Path) -> Iterator[Trial]:
    shape = {key: getattr(base, key) for key in ("channels", "depths", "groups")}
    # Seed by seed, so that a comparison that is cut short has all forms.
    for seed in range(options.seeds):
        for name in options.forms:
            path = folder / f"{name.replace(' ', '_')}.{seed}"
            arguments = fit_arguments(options, path, shape | FORMS[name], seed)
            yield Trial(f"{name}, seed {seed}", path, arguments, options.epochs)


def _form(name: str, config: InternImageConfig, size: int, folder: Path, ended: dict[Path, Trained]) -> TrainedForm:
    from internimage.tasks.gradients import read_gradient_norms

    stem = name.replace(" ", "_")
    trained = [each for path, each in sorted(ended.items()) if path.name.rpartition(".")[0] == stem]
    norms = [
        tuple(round(float(norm), 4) for norm in read_gradient_norms(each.trial.run)) if each.accuracy else ()
        for each in trained
    ]
    return TrainedForm(
        name,
        parameter_count(config),
        # As PyTorch's plain operators: what another machine keeps, too.
        activation_bytes(config, size, device="meta"),
        tuple(each.accuracy for each in trained),
        tuple(norms),
        tuple(each.seconds for each in trained),
        tuple(each.problem for each in trained),
    )


def _report(options: Namespace, forms: list[TrainedForm], folder: Path) -> int:
    from internimage.visualization.design.ablation import ablation_figure

    facts = describe_run("ablate", options)
    header, rows = ablation_table(forms)
    notes = ablation_notes(forms)
    print_table(header, rows, notes)
    files = [folder / f"{_STEM}.{suffix}" for suffix in ("md", "json", "png")]
    content = {"facts": facts, "forms": [each.to_dict() for each in forms]}
    page = results_page("From DCNv2 to DCNv3", facts, notes, header, rows)
    write_results(files, page, content, ablation_figure(forms))
    return 0


def ablation_table(forms: Sequence[TrainedForm]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what each form cost and reached."""
    header = ["form", "accuracy", "parameters", "kept, KiB", "gradient", "99% / median", "s per training"]
    rows = [
        [
            each.name,
            accuracy_in_words(each.mean_accuracy, each.spread),
            f"{each.parameters:,}",
            f"{each.activation_bytes / 1024:,.0f}",
            f"{each.typical_gradient:.2f}",
            f"{each.unsteadiness:.2f}",
            f"{sum(each.seconds) / len(each.seconds):.0f}",
        ]
        for each in forms
    ]
    return header, rows


def ablation_notes(forms: Sequence[TrainedForm]) -> list[str]:
    """What to know of the table, in sentences."""
    seeds = len(forms[0].final)
    notes = [
        f"accuracy: of the validation images after the last epoch, mean of {seeds} seeds"
        f"{' and their standard deviation' if seeds > 1 else ''}.",
        "kept: bytes that one image leaves for the backward pass, in float32, by PyTorch's own operators.",
        "gradient: median norm of all gradients before clipping; 99% / median: how far the largest stand out.",
    ]
    return notes + [f"{each.name} failed: {problem}." for each in forms for problem in each.problems if problem]
