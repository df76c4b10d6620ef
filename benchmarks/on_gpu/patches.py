"""What must change in the peers' sources so that they compile and import with a present PyTorch: as patterns, no code.

The patches are applied to temporary copies. None changes what a kernel computes or how it is launched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Patch:
    """One replacement.

    Args:
        pattern: a regular expression.
        replacement: as for ``re.sub``.
        why: what is no longer there.
    """

    pattern: str
    replacement: str
    why: str


CPP_PATCHES: tuple[Patch, ...] = (
    Patch(r"#include\s*<THC/THCAtomics\.cuh>", "#include <ATen/cuda/Atomic.cuh>", "THC is gone but for this header"),
    Patch(r"\bAT_ASSERTM\s*\(", "TORCH_CHECK(", "AT_ASSERTM is deprecated"),
    Patch(r"\bAT_ERROR\s*\(", "TORCH_CHECK(false, ", "AT_ERROR is deprecated"),
    Patch(r"\.type\(\)\s*\.\s*is_cuda\(\)", ".is_cuda()", "Tensor::type() is deprecated"),
    Patch(r"\.type\(\)(?=\s*,\s*\")", ".scalar_type()", "the dispatch macros take a scalar type"),
    Patch(r"\.data\s*<", ".data_ptr<", "Tensor::data<T>() is deprecated"),
)
PYTHON_PATCHES: tuple[Patch, ...] = (
    Patch(
        r"from torch\.cuda\.amp import custom_bwd, custom_fwd",
        "import functools as _functools\n"
        "import torch.amp as _amp\n"
        'custom_fwd = _functools.partial(_amp.custom_fwd, device_type="cuda")\n'
        'custom_bwd = _functools.partial(_amp.custom_bwd, device_type="cuda")',
        "torch.cuda.amp's decorators are deprecated",
    ),
    Patch(r"\bimport pkg_resources\b", "", "setuptools no longer has pkg_resources"),
    Patch(
        r"pkg_resources\.get_distribution\(['\"]DCNv3['\"]\)\.version",
        '"1.1"',
        "the version stands in the same checkout's setup.py",
    ),
    Patch(
        r"(?m)^from typing import (?:([\w, ]+), )?override$",
        r"from typing import \1\nfrom typing_extensions import override",
        "typing.override came with Python 3.12",
    ),
    Patch(r"(?m)^from typing import $", "", "what the patch before leaves of an import of override alone"),
    Patch(r"(?m)^class (\w+)\[.*\](?=[:(])", r"class \1", "type parameters of classes came with Python 3.12"),
    Patch(r"from timm\.models\.layers import", "from timm.layers import", "timm's layers have moved"),
)
_SUFFIXES = {".cpp": CPP_PATCHES, ".cu": CPP_PATCHES, ".cuh": CPP_PATCHES, ".h": CPP_PATCHES, ".py": PYTHON_PATCHES}


def patched(text: str, patches: Iterable[Patch]) -> str:
    """The text with every patch applied, wherever it fits.

    >>> patched("AT_ASSERTM(value.type().is_cuda());", CPP_PATCHES)
    'TORCH_CHECK(value.is_cuda());'
    """
    for patch in patches:
        text = re.sub(patch.pattern, patch.replacement, text)
    return text


def patch_folder(folder: Path) -> list[str]:
    """Patch every source below a folder in place; the relative names of those that changed."""
    changed: list[str] = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in _SUFFIXES and file.is_file():
            before = file.read_text(encoding="utf-8")
            after = patched(before, _SUFFIXES[file.suffix])
            if after != before:
                file.write_text(after, encoding="utf-8")
                changed.append(str(file.relative_to(folder)))
    return changed
