"""Configurations that ship with the package, found by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, cast

import yaml


def shipped_configs() -> dict[str, Path]:
    """Name (``classification/internimage_t_in1k_224``) and file of every shipped configuration."""
    with as_file(files("internimage") / "configs") as root:
        return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """A file, or a shipped configuration by its name, with or without its folder.

    Raises:
        ValueError: neither a file nor one shipped configuration of that name, or not valid YAML.
    """
    if Path(name).is_file():
        return _checked(Path(name))
    shipped = shipped_configs()
    found = {key: path for key, path in shipped.items() if name in (key, Path(key).name, f"{key}.yaml")}
    if len(found) > 1:
        raise ValueError(f"configuration {name!r} stands for {' and '.join(found)}; give one of these")
    if not found:
        raise ValueError(f"no configuration {name!r}: not a file, and the shipped ones are {', '.join(shipped)}")
    return next(iter(found.values()))


def _checked(path: Path) -> Path:
    # The parser would not name the file.
    try:
        yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; give a configuration in YAML") from None
    return path


def settings_in(path: str) -> dict[str, Any]:
    """The top-level settings of a configuration file; none where it holds something else."""
    values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return cast(dict[str, Any], values) if isinstance(values, dict) else {}


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names.

    >>> flattened({"a": {"b": 1, "c": {"d": [2]}}, "e": None})
    {'a.b': 1, 'a.c.d': [2], 'e': None}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        inner = cast(dict[str, Any], value) if isinstance(value, dict) and value else None
        flat |= {name: value} if inner is None else flattened(inner, f"{name}.")
    return flat


def resolve_config_names(arguments: Sequence[str]) -> list[str]:
    """Replace the value of every ``--config`` by its file's path.

    >>> Path(resolve_config_names(["--config", "smoke/classification"])[1]).name
    'classification.yaml'
    """
    resolved: list[str] = []
    for position, argument in enumerate(arguments):
        if position and arguments[position - 1] in ("--config", "-c"):
            argument = str(find_config(argument))
        elif argument.startswith("--config="):
            argument = f"--config={find_config(argument.removeprefix('--config='))}"
        resolved.append(argument)
    return resolved
