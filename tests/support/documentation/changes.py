"""How the commands of the documentation are run in tests: what is made shorter, and what is not run here, and why.

Every command of every page is run as it stands, in a folder with small stand-ins for the reader's files, with the
options of `SHORTER` behind it. Whatever can't be run is in `NOT_RUN`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from support.documentation.commands import Command


@dataclass(frozen=True)
class Shorter:
    """What is added to a command, for the time of a test.

    Args:
        pattern: a regular expression that is found in the command.
        added: what goes behind the command.
        why: what it would cost without.
        page: the only page where that holds, or None for all.
    """

    pattern: str
    added: str
    why: str
    page: str | None = None


@dataclass(frozen=True)
class Elsewhere:
    """Commands that are treated in another way, and why; on one page, or on all."""

    pattern: str
    why: str
    page: str | None = None


SMALL_STEPS = "--model.init_args.optimizer.warmup_steps 1 --data.init_args.batch_size 2"
_WITHIN = "--data.init_args.num_workers 0"
FEW = "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1"
_FROM_FEMTO = "--model.init_args.model internimage_femto --model.init_args.pretrained weights/femto.safetensors"
_ONE_EPOCH = "--epochs 1 --fit model.init_args.optimizer.warmup_epochs=0 data.init_args.batch_size=4"
_AGAIN = "the page offers it in place of the command before, and that one has written there"

SHORTER = (
    Shorter(r"\binternimage fit (?!.*--print_groups)", f"{FEW} {_WITHIN}", "minutes to hours of training"),
    Shorter(r"^internimage test", f"--trainer.limit_test_batches 1 {_WITHIN}", "a whole test set"),
    Shorter(r"--config (finetune|finetune_detector|finetune_segmenter) ", _FROM_FEMTO, "a download of InternImage-T"),
    Shorter(
        r"--config (finetune|from_scratch|cifar10) ",
        "--model.init_args.optimizer.warmup_epochs 0",
        "no epoch to warm up in",
    ),
    Shorter(
        r"--config internimage_l_\w+ .*--print_groups",
        "--model.init_args.pretrained null --trainer.precision 32-true",
        "a download of 1 GB, and a GPU",
    ),
    Shorter(
        r"--config finetune_detector ",
        "--data.init_args.frame [96,96] --data.init_args.augmentation.scales [64,96]",
        "large pictures",
    ),
    Shorter(
        r"--config finetune_segmenter ",
        "--data.init_args.frame [96,96] --data.init_args.augmentation.crop [64,64]",
        "large pictures",
    ),
    Shorter(
        r"--config (finetune_detector|finetune_segmenter|detection/\w+|segmentation/\w+) ",
        SMALL_STEPS,
        "two steps, and small ones",
    ),
    Shorter(r"test_time\.sides", "--model.init_args.test_time.sides [64,96]", "large pictures"),
    Shorter(
        r"--config (finetune|from_scratch) (?!.*size_steps)",
        "--data.init_args.image_size 32 --data.init_args.batch_size 4",
        "large pictures",
    ),
    Shorter(
        r"--config (from_scratch .*--run runs/flowers$|detection/bccd|segmentation/camvid)|strategy (fsdp2|ddp)$",
        "--overwrite",
        _AGAIN,
    ),
    Shorter(r"receptive_field my_photos", "--size 64", "large pictures"),
    Shorter(r"flowers.pt2 --format package", "--overwrite", _AGAIN),
    Shorter(
        r"^internimage design space",
        "--budget 0.5M --channels 16 --depths 1 --group_widths 8 --num_classes 10 --size 32 --repeats 1",
        "thirty networks of 30 million parameters",
    ),
    Shorter(r"^internimage design (search|ablate)", f"--config smoke/classification {_ONE_EPOCH} --seeds 1", "an hour"),
    Shorter(
        r"^internimage design search",
        "--budget 150K --channels 8 --depths 1 --group_widths 8 --finalists 1",
        "the same",
    ),
    Shorter(r"^internimage design ablate", "--forms DCNv3 --design 8 4 1 1", "the same"),
    Shorter(r"fit --run runs/streets --resume", "--trainer.max_epochs 2", "there is one epoch to go"),
    Shorter(r"fit .*--run runs/streets --auto_resume", "--trainer.max_epochs 3", "the same, after that"),
)
_DEMO, _ROBUSTNESS = "docs/guides/demo.md", "docs/guides/robustness.md"
NOT_RUN = (
    Elsewhere(r"^pip install |^git clone ", "the network; tests/documentation/test_made_pages.py compares the extras"),
    Elsewhere(r"^internimage quickstart$", "minutes: `.ci/run` runs it whole, as `make demo`"),
    Elsewhere(r"^srun ", "no SLURM here; tests/cli/training/test_launchers.py sets its variables"),
    Elsewhere(r"^internimage demo", "a server that runs on; tests/cli/demo asks it, also in a browser", _DEMO),
    Elsewhere(r"--peer ", "weights of timm's, by download or of a training of the reader's", _ROBUSTNESS),
    Elsewhere(r"^torchrun --nnodes 2", "two machines; the same test starts two agents on one"),
    Elsewhere(r"--ray auto", "a Ray cluster; tests/cli/bulk/test_ray.py begins one of two processes"),
    Elsewhere(r"^make (check|test|demo|docs)$", "the gate itself, `.ci/run`, and these tests"),
    Elsewhere(r"^make bench|^python -m benchmarks", "minutes to hours of measuring; tests/benchmarks runs the parts"),
    Elsewhere(r"^PYTHONPATH=src python benchmarks/gpu.py", "a GPU and other people's code; tests/benchmarks/on_gpu"),
    Elsewhere(r"--weights (mask_rcnn|upernet)_", "a download; tests/model has networks of every released form"),
    Elsewhere(r"^import os\n(.*\n)*from ray.train", "Ray Train, which is no dependency", "docs/guides/cluster.md"),
    Elsewhere(r"build_fashion_mnist", "the 70,000 original images, which are in no package on the index"),
)
# Pages whose ```python blocks take half a minute: they are run under `-m slow`.
SLOW_BLOCKS = {
    "docs/guides/compile.md": "two tracings of a network; tests/export/test_program.py has a smaller one",
    "docs/guides/openvino.md": "an export; tests/export has the same of small networks, also of this one",
}
# Commands that start the program again, from the command line of the process they are in.
OWN_PROCESS = (Elsewhere(r"--trainer\.devices 2", "Lightning starts the other processes by this one's command line"),)
_CARD = "src/internimage/model/shipped/internimage_pico.cifar10_32.md"
# Commands that take long even so, or are those of another page: they are run under `-m slow`.
SLOW = (
    Elsewhere(r"--trainer\.devices 2", "two processes that import everything on one core"),
    Elsewhere(r"--format package", "a compiler, for a minute"),
    Elsewhere(r"--format program", "a tracing; tests/cli/test_export.py has a smaller one", "docs/guides/compile.md"),
    Elsewhere(r"--int8|--half$|--features", "another export of the same run; tests/export has short ones"),
    Elsewhere(r"^internimage design (search|ablate)", "trainings; tests/cli/design has shorter ones"),
    Elsewhere(r"^internimage (fit|test)", "the classification guide's commands", _CARD),
    Elsewhere(r"^internimage (fit|test)", "the classification guide's commands", "docs/first_ten_minutes.md"),
    Elsewhere(r"^internimage (fit|export)", "commands of the guides", "docs/faq.md"),
    # README's commands train, test and predict in every task: these pages do more of it, for minutes together.
    *(
        Elsewhere("", "half a minute of trainings and exports", f"docs/guides/{page}.md")
        for page in ("classification", "detection", "segmentation", "training", "onnx", "openvino")
    ),
)


def shortened(command: Command) -> str:
    """The command as the tests run it; Python runs as it stands."""
    if command.is_python:
        return command.text
    added = (row.added for row in SHORTER if row.page in (None, command.page) and re.search(row.pattern, command.text))
    return " ".join([command.text, *added])


def listed(table: tuple[Elsewhere, ...], command: Command) -> Elsewhere | None:
    """The row that names this command, or None."""
    return next(
        (row for row in table if row.page in (None, command.page) and re.search(row.pattern, command.text)), None
    )
