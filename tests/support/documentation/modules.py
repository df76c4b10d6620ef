"""The programs in docs/, which is no package."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from support.documentation.commands import REPOSITORY


def module_in_docs(name: str) -> ModuleType:
    """``docs/NAME.py``."""
    spec = spec_from_file_location(f"docs_{name}", REPOSITORY / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Where dataclasses look for the module that they are in.
    sys.modules[spec.name] = module
    # As the interpreter does for a script: it may import its neighbours.
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(REPOSITORY / "docs"))
    return module
