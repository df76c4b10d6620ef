"""What the arguments of a training imply: a shipped configuration's path, a run's own configuration, a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from internimage.cli.configs import resolve_config_names, settings_in
from internimage.cli.training.run_folder import CONFIG_FILE


def complete(command: str, arguments: list[str]) -> list[str]:
    """Fill in what the arguments imply: a shipped configuration's path, a run's own configuration, a run's folder.

    Raises:
        ValueError: no such configuration, or there is no run where one is needed.
    """
    arguments = resolve_config_names(arguments)
    configs = _values(arguments, "--config", "-c")
    run, config = next(iter(_values(arguments, "--run")), None), next(iter(configs), None)
    if run is not None and config is None:
        own = Path(run) / CONFIG_FILE
        if own.is_file():
            # The folder may have moved since: what was typed wins over what the configuration says.
            return ["--config", str(own), *arguments]
        if "--resume" in arguments or (command != "fit" and not any(text.startswith("--model") for text in arguments)):
            raise ValueError(f"{run} holds no run: there is no {CONFIG_FILE} in it; give the folder of a run")
    is_named = any(Path(path).name == CONFIG_FILE or "run" in settings_in(path) for path in configs)
    if run is None and config is not None and not is_named:
        return [*arguments, "--run", f"runs/{Path(config).stem}"]
    return arguments


def _values(arguments: Sequence[str], *names: str) -> list[str]:
    """All values of an option that has these names."""
    found: list[str] = []
    for position, argument in enumerate(arguments):
        if argument in names and position + 1 < len(arguments):
            found.append(arguments[position + 1])
        name, equals, value = argument.partition("=")
        if equals and name in names:
            found.append(value)
    return found
