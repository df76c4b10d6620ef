"""``--wandb PROJECT``: the run also at Weights & Biases."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

# The folder of the library's own files, and the name under which a resumed run goes on there.
WANDB_FOLDER, WANDB_FILE = "wandb", "wandb.txt"


class RunWandb(WandbLogger):
    """Begins when the training has its folder, not before, and goes on with the same run after a resume.

    Without a network, ``WANDB_MODE=offline`` keeps everything in the run's folder for ``wandb sync``.

    Args:
        project: of Weights & Biases.
        run: the run's folder, whose name is the run's there.
        resume: the run in the folder goes on.

    Raises:
        ImportError: the library is missing.
    """

    def __init__(self, project: str, run: Path, *, resume: bool) -> None:
        if find_spec("wandb") is None:
            raise ImportError("--wandb needs wandb: pip install 'internimage-torch[wandb]'")
        known = run / WANDB_FILE
        number = known.read_text(encoding="utf-8").strip() if resume and known.is_file() else None
        more: dict[str, Any] = {} if number is None else {"resume": "allow"}
        super().__init__(name=run.resolve().name, save_dir=run, project=project, id=number, **more)
        self._file, self._has_begun = known, False

    @property
    def experiment(self) -> Any:
        """The run there; None until `begin`, though Lightning asks for it before the run has its folder."""
        return super().experiment if self._has_begun else None

    def log_hyperparams(self, params: Any) -> None:
        """Nothing: Lightning says them too early, and without most of the configuration; see `begin`."""

    @rank_zero_only
    def begin(self, settings: dict[str, Any]) -> None:
        """Open the run there, with all settings by their dotted names."""
        self._has_begun = True
        self.experiment.config.update(settings, allow_val_change=True)
        self._file.write_text(f"{self.experiment.id}\n", encoding="utf-8")
