"""Compile Triton kernels for GPUs that are not there, and read what they need: registers, spills, shared memory.

``compile_for("sm_90", kernel, {"x_ptr": "*fp16", "size": "i32"}, {"BLOCK": 64}, num_warps=4).spills``
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as triton_compile

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    # Tesla V100 and T4: what free notebooks have.
    "sm_70": GPUTarget("cuda", 70, 32),
    "sm_75": GPUTarget("cuda", 75, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_NVIDIA_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Resources(NamedTuple):
    """What one thread (registers, spills) and one program (shared) of a compiled kernel need.

    registers: vector registers. spills and shared: bytes, of local memory (NVIDIA: the stack frame; AMD: scratch) and
    of shared memory. scalar_spills: AMD's scalar registers that went into vector registers, which costs no memory.
    """

    registers: int
    spills: int
    shared: int
    scalar_spills: int = 0


def compile_for(
    target: str,
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    *,
    aligned: Collection[str] = (),
    small: bool = True,
    **options: Any,
) -> Resources:
    """Compile for a name of `TARGETS`.

    Args:
        target: sm_80 (A100), sm_90 (H100), sm_100 (B200) or gfx942 (MI300).
        kernel: a ``@triton.jit`` function.
        types: of the other arguments: ``"*fp16"``, ``"*bf16"``, ``"*fp32"``, ``"i32"``, ``"i64"``, ``"fp32"``.
        constants: ``tl.constexpr`` arguments, and those that Triton takes for such: None, and integers that are 1.
        aligned: integer arguments that are multiples of 16, as Triton finds out at a launch; pointers always are.
        small: whether the tensors have less than 2 GiB, which AMD's compiler makes use of.
        options: num_warps, num_stages, maxnreg, ...; a target ignores those of other makers.
    """
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    unknown = (types.keys() | constants.keys() | set(aligned)) - signature.keys()
    assert not unknown, f"no arguments of the kernel: {', '.join(sorted(unknown))}"
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    sixteens = [name for name, kind in signature.items() if kind.startswith("*") or name in aligned]
    attributes = {places[name]: [["tt.divisibility", 16]] for name in sixteens}
    if small and TARGETS[target].backend == "hip":
        # What AMD's launcher finds out about tensors of less than 2 GiB.
        for name, kind in signature.items():
            if kind.startswith("*"):
                attributes[places[name]].append(["tt.pointer_range", 32])
    source = ASTSource(kernel, signature, {places[name]: value for name, value in constants.items()}, attributes)
    compiled = triton_compile(source, target=TARGETS[target], options=options)
    if TARGETS[target].backend == "cuda":
        registers, spills = _read_nvidia(compiled.asm["cubin"])
        return Resources(registers, spills, compiled.metadata.shared)
    registers, spills, scalar_spills = _read_amd(compiled.asm["amdgcn"])
    return Resources(registers, spills, compiled.metadata.shared, scalar_spills)


def _read_nvidia(cubin: bytes) -> tuple[int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_NVIDIA_TOOLS / "cuobjdump", "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack, local = (_number(rf"\b{name}:(\d+)", usage) for name in ("REG", "STACK", "LOCAL"))
    return registers, stack + local


def _read_amd(assembly: str) -> tuple[int, int, int]:
    names = ("vgpr_count", "private_segment_fixed_size", "vgpr_spill_count", "sgpr_spill_count")
    registers, scratch, spilled, scalar_spills = (_number(rf"\.{name}:\s*(\d+)", assembly) for name in names)
    return registers, max(scratch, 4 * spilled), scalar_spills


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in:\n{text[-2000:]}"
    return int(found.group(1))
