"""The program: finds the command, runs it, and turns expected errors into one sentence."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import internimage

# Command -> (module with main(arguments) or main(command, arguments), one line for people).
_COMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("training", "train on your images or on the sample set"),
    "validate": ("training", "measure a run on its validation images"),
    "test": ("training", "measure a run on its test images"),
    "predict": ("predict", "name images, their objects, or their pixels"),
    "models": ("models", "list architectures and released weights"),
    "convert": ("convert", "translate weight files: official, Hugging Face, ours"),
    "export": ("export", "write a network for another runtime: ONNX, OpenVINO, torch.export"),
    "data": ("data", "look at your data before training; convert it; write sample sets"),
    "runs": ("runs", "compare what has been trained"),
    "doctor": ("doctor", "say what runs on this machine, and why"),
    "quickstart": ("quickstart", "train, test and predict on the sample set in a few minutes"),
    "design": ("design", "the paper's rules on your own budget: candidates, scaling, search, ablation"),
    "visualize": ("visualize", "see where a network looks and what it makes of an image"),
    "demo": ("demo", "look at pictures in a browser, and at where a network looks"),
}
_NEEDS_TRAIN = ("lightning", "timm", "torchvision", "torchmetrics", "tensorboard", "matplotlib", "jinja2")
_EXPECTED = (ValueError, NotImplementedError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``internimage ARGUMENTS``; returns the exit status: 0, 1 (something failed), 2 (bad input), 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"internimage {internimage.__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in _COMMANDS:
        print(f"internimage: unknown command {command!r}\n\n{_usage()}", file=sys.stderr)
        return 2
    _log_to_stderr()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name need not be valid text: it must not end the program.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _load(command)(rest)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if "internimage-torch[" in str(error):
            return _fail(str(error), error)
        if package in _NEEDS_TRAIN:
            extra = "visualize" if command == "visualize" else "train"
            return _fail(f"{command} needs {package}: pip install 'internimage-torch[{extra}]'", error)
        raise
    except BrokenPipeError:
        # Whoever read the output has seen enough (`internimage models | head`); Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # Without the number and quotes of Python's own text.
        plain = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return _fail(plain, error)
    except _EXPECTED as error:
        return _fail(str(error), error)


def _load(command: str) -> Callable[[Sequence[str]], int]:
    module = import_module(f"internimage.cli.{_COMMANDS[command][0]}")
    if _COMMANDS[command][0] == "training":
        return lambda arguments: module.main(command, arguments)
    return module.main


def _log_to_stderr() -> None:
    """Our own messages, plainly; other libraries keep their warnings to themselves unless they matter."""
    ours = logging.getLogger("internimage")
    ours.setLevel(logging.INFO)
    # Called again within one process, the stream may have been replaced.
    ours.handlers = [logging.StreamHandler(sys.stderr)]
    # Every retry of a download is announced twice otherwise; the error at the end says it once.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _fail(message: str, error: Exception) -> int:
    if os.environ.get("INTERNIMAGE_DEBUG"):
        raise error
    print(f"internimage: {message}", file=sys.stderr)
    return 2


def _usage() -> str:
    lines = [f"  {name:<10} {line}" for name, (_, line) in _COMMANDS.items()]
    return "\n".join(
        [
            f"internimage {internimage.__version__}: InternImage and its operator DCNv3",
            "",
            "usage: internimage COMMAND [--help] ...",
            "",
            *lines,
            "",
            "INTERNIMAGE_DEBUG=1 shows where an error came from.",
        ]
    )
