"""Successive halving by optuna, kept in a file, so that a search can go on another day.

Source: asynchronous successive halving, arXiv:1810.05934.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internimage.cli.design.trials import Trained, Trial, read_trained

if TYPE_CHECKING:
    import optuna

JOURNAL_FILE = "study.log"
_NAME, _DESIGN = "design", "design"


class Study:
    """Which designs wait, and which of those in training are hopeless.

    Args:
        folder: of the search; the study's journal lies in it.
        designs: names in the order of their trainings.
        reduction: of so many that have trained 1, reduction, reduction squared, ... epochs, one goes on.

    Raises:
        ImportError: optuna is not installed.
    """

    def __init__(self, folder: Path, designs: Sequence[str], reduction: int) -> None:
        optuna_here = import_optuna()
        from optuna.pruners import SuccessiveHalvingPruner
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState

        self._states: Any = TrialState
        self._designs = list(designs)
        self._study = optuna_here.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL_FILE))),
            study_name=_NAME,
            direction="maximize",
            load_if_exists=True,
            pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction),
        )
        self._asked: dict[str, optuna.Trial] = {}
        # Trainings are judged in threads of their own.
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        states = self._states
        for each in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            # Of a search that was stopped: its folder has the state, another trial goes on with it.
            self._study.tell(each.number, state=states.FAIL)
        waiting = self._study.get_trials(deepcopy=False, states=(states.WAITING,))
        placed = {*self.judged, *(each.user_attrs[_DESIGN] for each in waiting)}
        for design in self._designs:
            if design not in placed:
                self._study.enqueue_trial({_DESIGN: design}, user_attrs={_DESIGN: design})

    @property
    def judged(self) -> list[str]:
        """Designs whose training has ended, in an earlier call or this one."""
        ended = (self._states.COMPLETE, self._states.PRUNED)
        return [each.params[_DESIGN] for each in self._study.get_trials(deepcopy=False, states=ended)]

    def waiting(self) -> Iterator[str]:
        """Designs that are to be trained, one after the other."""
        while self._study.get_trials(deepcopy=False, states=(self._states.WAITING,)):
            trial = self._study.ask()
            design = str(trial.suggest_categorical(_DESIGN, self._designs))
            self._asked[design] = trial
            yield design

    def judge(self, design: str) -> Callable[[int, float], bool]:
        """Says of an epoch's accuracy whether this design's training is hopeless."""
        trial = self._asked[design]

        def is_hopeless(epoch: int, accuracy: float) -> bool:
            with self._lock:
                trial.report(accuracy, epoch)
                return trial.should_prune()

        return is_hopeless

    def tell(self, design: str, trained: Trained) -> None:
        """Keep how its training ended."""
        trial, states = self._asked[design], self._states
        if trained.problem is not None:
            self._study.tell(trial, state=states.FAIL)
        elif trained.is_cut:
            self._study.tell(trial, state=states.PRUNED)
        else:
            self._study.tell(trial, trained.accuracy[-1])

    def recall(self, trial: Trial) -> Trained:
        """How a training ended that `judged` has."""
        design = trial.run.name.rpartition(".")[0]
        cut = self._study.get_trials(deepcopy=False, states=(self._states.PRUNED,))
        return read_trained(trial, is_cut=any(each.params[_DESIGN] == design for each in cut))


def import_optuna() -> Any:
    """optuna, quiet; ``ImportError`` with what to install if it is not there."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError("design search needs optuna: pip install 'internimage-torch[design]'") from error
    # Its lines about every trial would stand between ours.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
