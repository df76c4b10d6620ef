"""What all formats share: which networks and inputs may leave, one trace with open sizes, and the comparison after.

Shape legend: N batch, C channels, H W image.
"""

# torch.export is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from internimage.model import InternImage, InternImageClassifier

# Of the trace: a batch of 1 or a map of one pixel somewhere would be taken for a constant.
_BATCH, _HEIGHT, _WIDTH = 2, 96, 80
# Of the comparison: even and odd, larger and smaller than the trace, one image and several.
_SIZES = ((1, 64, 64), (3, 96, 80), (2, 75, 109))
# Largest relative RMS error of an output from weights or arithmetic of this precision.
_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.int8: 3e-1}

Runtime = Callable[[Tensor], Sequence[Tensor]]
Report = Callable[["Agreement"], Any]


@dataclass(frozen=True)
class Agreement:
    """How far a runtime's outputs are from the network's own at one input size.

    Args:
        shape: of the input, (N, C, H, W).
        error: the largest relative RMS error of an output.
        tolerance: what is allowed.
    """

    shape: tuple[int, ...]
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the error is allowed; NaN never is."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        """One line for people."""
        size = " x ".join(map(str, self.shape))
        verdict = "agrees" if self.holds else "DIFFERS"
        return f"{size}: {verdict}, relative RMS error {self.error:.1e} (allowed {self.tolerance:.0e})"


def require(*packages: str, extra: str = "export") -> None:
    """``ImportError`` with the command that helps, if one is missing."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ImportError(
            f"export needs {', '.join(missing)}: pip install 'internimage-torch[{extra}]'", name=missing[0]
        )


def check(model: nn.Module, example: Tensor | None) -> None:
    """``ValueError`` unless ``model`` can be exported, and takes ``example``."""
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode, where it drops parts at random; call model.eval() first")
    if next(model.parameters()).dtype != torch.float32:
        raise ValueError(f"export takes float32 weights, the model has {next(model.parameters()).dtype}")
    if example is None and not isinstance(model, InternImage | InternImageClassifier):
        raise ValueError(f"for a {type(model).__name__}, which is none of ours, give an example: images (N, C, H, W)")
    if example is not None and (example.dim() != 4 or not example.is_floating_point()):
        raise ValueError(
            f"example must be floating-point images (N, C, H, W), got {example.dtype} of shape {tuple(example.shape)}"
        )
    if example is not None:
        with torch.inference_mode():
            # Says in its own words what it can't take.
            model(example)


def check_path(path: str | Path, suffix: str, overwrite: bool) -> Path:
    """The path, if it ends in ``suffix`` and nothing is lost there."""
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"this format's files end in {suffix}, got {path}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name, or replace it with overwrite=True (--overwrite)")
    return path


@contextmanager
def draft(path: Path, overwrite: bool) -> Generator[Path]:
    """A place to write what belongs at ``path``; moved there, with all that was written beside it, if all went well.

    Nobody finds half a file, one that doesn't agree replaces none, and none beside it is replaced unasked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export_", dir=path.parent) as folder:
        file = Path(folder) / path.name
        yield file
        for each in Path(folder).iterdir():
            check_path(path.parent / each.name, each.suffix, overwrite)
        # Weights before the file that names them.
        for each in sorted(Path(folder).iterdir(), key=lambda each: each == file):
            each.replace(path.parent / each.name)


def trace(model: nn.Module, example: Tensor | None = None) -> torch.export.ExportedProgram:
    """The network as one graph with open batch, height and width; DCNv3 stays one operator."""
    first = next(model.parameters())
    size = (_BATCH, _channels(model, example), _HEIGHT, _WIDTH)
    image_NCHW = torch.zeros(size, dtype=first.dtype, device=first.device)
    dynamic = torch.export.Dim.DYNAMIC
    return torch.export.export(model, (image_NCHW,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))


def output_names(model: nn.Module, count: int) -> list[str]:
    """``logits``, or the maps by their stages."""
    if count == 1:
        return ["logits"]
    return [f"stage{number}" if isinstance(model, InternImage) else f"output{number}" for number in range(1, count + 1)]


def compare(
    model: nn.Module,
    run: Runtime,
    name: str,
    *,
    precision: torch.dtype = torch.float32,
    example: Tensor | None = None,
    images: Iterable[Tensor] | None = None,
    report: Report | None = None,
) -> list[Agreement]:
    """What a runtime computes beside what the network does, at several sizes and batches.

    Args:
        model: the network, in float32.
        run: takes images (N, C, H, W) in float32 on the CPU, gives the outputs in order.
        name: of what is compared, for the error.
        precision: of the runtime's weights or arithmetic; decides what is allowed.
        example: images to compare on, too.
        images: batches to compare on in place of noise of several sizes.
        report: is told of each size, agreement or not.

    Raises:
        ValueError: an output differs; says where, and by how much.
    """
    found: list[Agreement] = []
    device = next(model.parameters()).device
    for image_NCHW in _images(model, example) if images is None else images:
        with torch.inference_mode():
            expected = as_list(model(image_NCHW.to(device)))
        with torch.no_grad():
            results = run(image_NCHW)
        errors = [relative_error(each.cpu(), wanted.cpu()) for each, wanted in zip(results, expected, strict=True)]
        # max() would lose NaN.
        error = next((each for each in errors if each != each), max(errors))
        found.append(Agreement(tuple(image_NCHW.shape), error, _TOLERANCE[precision]))
        if report is not None:
            report(found[-1])
    if wrong := [each for each in found if not each.holds]:
        raise ValueError(f"{name} does not compute what the network does: {'; '.join(map(str, wrong))}")
    return found


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of the expectation; infinite for another shape."""
    if actual.shape != expected.shape:
        return float("inf")
    actual, expected = actual.double(), expected.double()
    scale = float(expected.square().mean().sqrt())
    error = float((actual - expected).square().mean().sqrt())
    return error / scale if scale else error


def _images(model: nn.Module, example: Tensor | None) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in _SIZES:
        yield torch.randn(batch, _channels(model, example), height, width, generator=generator)
    if example is not None:
        yield example.float().cpu()


def _channels(model: nn.Module, example: Tensor | None) -> int:
    return int(example.shape[1]) if example is not None else int(model.config.in_chans)  # pyright: ignore


def as_list(output: Any) -> list[Tensor]:
    """One output or several, as a list."""
    return list(output) if isinstance(output, list | tuple) else [output]
