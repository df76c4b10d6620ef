"""``internimage design search``: train a budget's candidates for a while, leave the worst behind, rank the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.design.options import accuracy_in_words, describe_run, read_count
from internimage.cli.design.results import print_table, results_page, write_results
from internimage.cli.design.study import Study, import_optuna
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
from internimage.model.design.cost import multiply_adds
from internimage.model.design.stacking import Candidate, design_space
from internimage.structures import SearchedDesign

_STEM = "search"
_BUDGET = "0.5M"


def parser() -> ArgumentParser:
    """The command's options."""
    found = ArgumentParser(
        prog="internimage design search",
        description="Train the designs of a budget with successive halving, the best of them with several seeds.",
    )
    found.add_argument("--budget", type=str, default=_BUDGET, help="parameters, such as 0.5M or 30M")
    found.add_argument("--channels", type=int, nargs="+", default=[8, 12, 16], help="choices of C1")
    found.add_argument("--depths", type=int, nargs="+", default=[1, 2, 3], help="choices of L1 = L2 = L4")
    found.add_argument("--group_widths", type=int, nargs="+", default=[4, 8], help="choices of C', channels per group")
    found.add_argument("--num_classes", type=int, default=10, help="of the data, for the count of parameters")
    reduction = "of every so many candidates one goes on to train so many times longer: after 1, R, R*R, ... epochs"
    found.add_argument("--reduction", type=int, default=3, help=reduction)
    finalists = "the best ones, which are trained to the end with every seed"
    found.add_argument("--finalists", type=int, default=3, help=finalists)
    found.add_argument("--seeds", type=int, default=3, help="trainings of every finalist")
    add_training_options(found, "runs/search")
    return found


def run(options: Namespace) -> int:
    """Search, and rank; returns the exit status."""
    if options.seeds < 1 or options.finalists < 1 or options.reduction < 2:
        raise ValueError(
            "--seeds and --finalists must be at least 1 and --reduction at least 2, "
            f"got {options.seeds}, {options.finalists} and {options.reduction}"
        )
    space = design_space(
        read_count(options.budget, "--budget"),
        options.channels,
        options.depths,
        options.group_widths,
        num_classes=options.num_classes,
        **recipe_model_options(options),
    )
    # A group of another width would be another design than the one it is called by.
    candidates = {_name(each): each for each in space.candidates if not each.changes}
    if not candidates:
        raise ValueError("no width of --channels is a multiple of one of --group_widths; choose others")
    print(
        f"{len(candidates)} candidates of about {space.budget:,} parameters; choices left out: "
        f"{len(space.left_out)} far from it, {len(space.candidates) - len(candidates)} without whole groups",
        flush=True,
    )
    # Missed before a folder is made.
    import_optuna()
    kept = {key: options[key] for key in ("budget", "channels", "depths", "group_widths", "num_classes", "reduction")}
    with comparison_folder(options, {"what": "search"} | kept) as folder:
        try:
            return _search(options, candidates, folder)
        except Stopped:
            print(f"stopped; the same command with --resume goes on in {folder}")
            return 130


def _search(options: Namespace, candidates: dict[str, Candidate], folder: Path) -> int:
    order = list(candidates)
    random.Random(0).shuffle(order)
    study = Study(folder, order, options.reduction)
    progress, ended = Progress(None), dict[str, list[Trained]]()

    def done(trained: Trained) -> None:
        name, _, seed = trained.trial.run.name.rpartition(".")
        ended.setdefault(name, []).append(trained)
        if seed == "0":
            study.tell(name, trained)
        progress.tell(trained)

    # Those of an earlier call are read from their folders.
    earlier = (_trial(options, name, candidates[name], 0, folder) for name in study.judged)
    for each in earlier:
        ended[each.run.name.rpartition(".")[0]] = [study.recall(each)]
    train_all(_first_round(options, study, candidates, folder), options.jobs, done)
    ranked = sorted(ended, key=lambda name: _rank(ended[name][0]), reverse=True)
    finalists = [name for name in ranked if _is_whole(ended[name][0])][: options.finalists]
    more = [
        _trial(options, name, candidates[name], seed, folder) for seed in range(1, options.seeds) for name in finalists
    ]
    train_all(iter(more), options.jobs, done)
    size = image_size(each for name in ranked for each in ended[name])
    found = [_summary(candidates[name], ended[name], size) for name in ranked]
    return _report(options, found, folder)


def _first_round(options: Namespace, study: Study, candidates: dict[str, Candidate], folder: Path) -> Iterator[Trial]:
    for name in study.waiting():
        yield _trial(options, name, candidates[name], 0, folder, study)


def _trial(
    options: Namespace, name: str, candidate: Candidate, seed: int, folder: Path, study: Study | None = None
) -> Trial:
    config = candidate.config
    shape = {key: getattr(config, key) for key in ("channels", "depths", "groups")}
    path = folder / f"{name}.{seed}"
    is_hopeless = None if study is None else study.judge(name)
    arguments = fit_arguments(options, path, shape, seed)
    return Trial(f"{candidate.design}, seed {seed}", path, arguments, options.epochs, is_hopeless)


def _name(candidate: Candidate) -> str:
    return "-".join(map(str, candidate.design.numbers))


def _rank(trained: Trained) -> tuple[int, float]:
    """Those that were let go on come first; among them, accuracy decides."""
    return len(trained.accuracy), trained.accuracy[-1] if trained.accuracy else 0.0


def _is_whole(trained: Trained) -> bool:
    return trained.problem is None and not trained.is_cut


def _summary(candidate: Candidate, trained: list[Trained], size: int) -> SearchedDesign:
    return SearchedDesign(
        candidate.design.numbers,
        candidate.parameters,
        multiply_adds(candidate.config, size),
        tuple(each.accuracy for each in trained),
        tuple(each.seconds for each in trained),
        trained[0].problem,
    )


def _report(options: Namespace, found: list[SearchedDesign], folder: Path) -> int:
    from internimage.visualization.design.search import search_figure

    found = sorted(found, key=lambda each: (each.epochs, each.mean_accuracy), reverse=True)
    facts = describe_run("search", options)
    header, rows = search_table(found)
    notes = [
        "accuracy: of the validation images after the last epoch; of several seeds the mean and standard deviation.",
        f"The first one: InternImageConfig.stacked({', '.join(map(str, found[0].design))}).",
        *(f"{each.design} failed: {each.problem}." for each in found if each.problem is not None),
    ]
    print_table(header, rows, notes)
    files = [folder / f"{_STEM}.{suffix}" for suffix in ("md", "json", "png")]
    content = {"facts": facts, "designs": [each.to_dict() for each in found]}
    page = results_page(f"A search among designs of {options.budget} parameters", facts, notes, header, rows)
    write_results(files, page, content, search_figure(found))
    return 0


def search_table(found: Sequence[SearchedDesign]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of ranks, costs and accuracies."""
    header = ["C1, C', L1, L3", "parameters", "multiply-adds, M", "epochs", "seeds", "accuracy"]
    rows = [
        [
            ", ".join(map(str, each.design)),
            f"{each.parameters:,}",
            f"{each.multiply_adds / 1e6:.1f}",
            str(each.epochs),
            str(len(each.accuracy)),
            accuracy_in_words(each.mean_accuracy, each.spread),
        ]
        for each in found
    ]
    return header, rows
