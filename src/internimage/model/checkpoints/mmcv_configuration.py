"""Configurations as mmcv writes them into checkpoints, for mmdetection and mmsegmentation alike: read, never run."""

from __future__ import annotations

import ast
import logging
import warnings
from typing import Any, cast

log = logging.getLogger(__name__)
# What of a configuration is looked at, and how text fails to be one.
_READ = ("model", "data", "test_pipeline")
_UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)


def evaluate(text: str, path: str, otherwise: str) -> dict[str, Any]:
    """The values in a configuration: assignments of literals and ``dict(...)``, no code.

    Args:
        text: the configuration.
        path: the file that holds it, for the log.
        otherwise: what the log says happens where it can't be read.
    """
    values: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            # Of a path with backslashes, which mmcv does not escape.
            warnings.simplefilter("ignore")
            statements = ast.parse(text).body
    except _UNREADABLE as error:
        log.warning("%s: its configuration can't be read (%s): %s", path, error, otherwise)
        return values
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            try:
                values[name] = _value(statement.value)
            except _UNREADABLE as error:
                if name in _READ:
                    log.warning("%s: %s in its configuration can't be read (%s): %s", path, name, error, otherwise)
    return values


def find(config: Any, where: str) -> Any:
    """The value at a place such as ``model.neck.type``; None where there is none."""
    for name in where.split("."):
        if not isinstance(config, dict):
            return None
        config = cast(dict[str, Any], config).get(name)
    return config


def steps_of(pipeline: Any) -> list[dict[str, Any]]:
    """All steps of a pipeline, also those inside others."""
    found: list[dict[str, Any]] = []
    for step in cast(list[Any], pipeline) if isinstance(pipeline, list) else []:
        if isinstance(step, dict):
            named = cast(dict[str, Any], step)
            found += [named, *steps_of(named.get("transforms"))]
    return found


def tested_steps(config: dict[str, Any]) -> list[dict[str, Any]]:
    """How the pictures it was tested on were prepared."""
    # What `data` says was done; `test_pipeline` is mostly where that was written down.
    return steps_of(find(config, "data.test.pipeline") or config.get("test_pipeline"))


def tested_size(steps: list[dict[str, Any]], path: str) -> tuple[int, int] | None:
    """The shorter and the longer side of the tested pictures; None, with a warning, where there were several."""
    scale: Any = next((step["img_scale"] for step in steps if "img_scale" in step), None)
    if isinstance(scale, list) and len(cast(list[Any], scale)) == 1:
        (scale,) = cast(list[Any], scale)
    sides = cast(tuple[Any, ...], scale) if isinstance(scale, tuple) else ()
    if scale is not None and (len(sides) != 2 or not all(type(side) is int for side in sides)):
        log.warning("%s was tested at several scales (%r); the usual one is used", path, cast(object, scale))
        sides = ()
    return (min(sides), max(sides)) if sides else None


def normalisation(steps: list[dict[str, Any]], path: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel, for values in [0, 1]; None where nothing was normalised.

    Raises:
        ValueError: they are no numbers.
    """
    normal = next((step for step in steps if step.get("type") == "Normalize"), None)
    if normal is None:
        return None
    try:
        mean, std = (tuple(each / 255 for each in normal[key]) for key in ("mean", "std"))
    except (KeyError, TypeError):
        raise ValueError(f"{path} was tested with a Normalize that can't be read: {normal}") from None
    return mean, std


def is_same(given: Any, wanted: Any) -> bool:
    """Tuples count as lists, and one side of a square as both."""
    if isinstance(given, tuple):
        given = list(cast(tuple[Any, ...], given))
    return given in (wanted, [wanted, wanted])


def is_close(some: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Whether these are the same numbers, as far as anyone writes them down."""
    return len(some) == len(others) and all(abs(a - b) < 1e-5 for a, b in zip(some, others, strict=True))


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {str(each.arg): _value(each.value) for each in node.keywords}
    if isinstance(node, ast.List):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(each) for each in node.elts)
    if isinstance(node, ast.Dict):
        return {_value(key) if key else "": _value(each) for key, each in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)
