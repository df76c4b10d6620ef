"""Reference -> C++ kernel: every group width and instruction set, threads, strides, hostile numbers, forks."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from internimage.ops.dcnv3 import DCNv3Geometry, cpu, dcnv3, dcnv3_reference, explain_dcnv3
from internimage.ops.dcnv3.reference import dcnv3_reference_backward
from support.cases import CASES, NAMES, Case
from support.compare import TOLERANCE, relative_rms

pytestmark = pytest.mark.usefixtures("poisoned_memory")
GEOMETRY = DCNv3Geometry.make()
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True, scope="module")
def built() -> None:
    """These tests are about the kernel, so they fail where it can't be had."""
    assert cpu.why_not(torch.zeros(1, 1, 1, 1, 1)) is None


def make(shape: tuple[int, ...], dtype: torch.dtype, points: int = 9) -> tuple[torch.Tensor, ...]:
    batch, height, width, groups, _ = shape
    sizes = (shape, (batch, height, width, groups, points, 2), (batch, height, width, groups, points))
    return tuple(torch.randn(size).to(dtype) for size in sizes)


def forward(tensors: Any, geometry: DCNv3Geometry = GEOMETRY, normalize: str = "softmax", level: int = -1) -> Any:
    """The kernel on no more than an instruction set: an index into `cpu.INSTRUCTION_SETS`, -1 for the best."""
    return torch.ops.internimage_cpu.forward(*tensors, *geometry.arguments, normalize, level)


def backward(grad: Any, tensors: Any, geometry: DCNv3Geometry = GEOMETRY, level: int = -1) -> Any:
    return torch.ops.internimage_cpu.backward(grad, *tensors, *geometry.arguments, "softmax", level)


def both(tensors: tuple[torch.Tensor, ...], level: int = -1, geometry: DCNv3Geometry = GEOMETRY) -> Any:
    """Output and gradients of the kernel and of the reference, which sees 16-bit numbers as float32."""
    output = forward(tensors, geometry, level=level)
    grad = torch.randn(output.shape).to(output.dtype)
    found = (output, *backward(grad, tensors, geometry, level))
    wide = [t.float() if t.dtype.itemsize == 2 else t for t in (grad, *tensors)]
    exact = dcnv3_reference(*wide[1:], geometry, "softmax")
    expected = (exact, *dcnv3_reference_backward(*wide, geometry, "softmax"))
    # At whole pixels interpolation has a kink, and the slope on either side of it is right; 16 bits are whole often.
    smooth = wide[2].frac() != 0
    return tuple(
        tuple(torch.where(smooth, tensor, 0) if index == 2 else tensor for index, tensor in enumerate(outcome))
        for outcome in (found, expected)
    )


def check(found: Any, expected: Any, name: str) -> None:
    forward, gradient = TOLERANCE[name]
    errors = [relative_rms(f, e) for f, e in zip(found, expected, strict=True)]
    assert all(error <= limit for error, limit in zip(errors, (forward, *[gradient] * 3), strict=True)), errors


@pytest.mark.parametrize("name", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 28, 31, 32, 48, 63, 64, 80])
def test_any_group_width(depth: int, name: str) -> None:
    """Widths are cut into vectors of 16, 8, 4 and 1: every cut must meet the next one."""
    for level in range(len(cpu.INSTRUCTION_SETS)):
        check(*both(make((1, 5, 6, 2, depth), DTYPES[name]), level), name)


@pytest.mark.parametrize(("groups", "kernel"), [(61, 3), (29, 3), (7, 9), (2, 17)], ids=str)
def test_more_lanes_than_a_block_has(groups: int, kernel: int) -> None:
    """Groups are cut into blocks of 256 sampling points, of which the last has fewer; one group can have more."""
    geometry = DCNv3Geometry.make(kernel, padding=kernel // 2)
    check(*both(make((1, 3, 4, groups, 5), torch.float32, kernel * kernel), geometry=geometry), "fp32")


def test_a_kernel_of_more_points_than_a_block_can_have() -> None:
    tensors = make((1, 1, 1, 1, 1), torch.float32, 65 * 65)
    with pytest.raises(RuntimeError, match="more than 4096 points"):
        forward(tensors, DCNv3Geometry.make(65, padding=32))


@pytest.mark.parametrize("case", CASES, **NAMES)
def test_without_vector_instructions(case: Case) -> None:
    """What runs on a processor that has none beyond the least of its kind."""
    tensors = tuple(tensor.contiguous() for tensor in case.tensors(torch.float32))
    found = forward(tensors, case.geometry, case.pattern.normalize, level=0)
    expected = dcnv3_reference(*tensors, case.geometry, case.pattern.normalize)
    assert relative_rms(found, expected) <= TOLERANCE["fp32"][0]


@pytest.mark.parametrize("size", [(31, 3), (33, 2), (2, 32), (1, 65), (97, 1), (64, 40)])
def test_maps_of_any_width(size: tuple[int, int]) -> None:
    """Maps are worked through in strips of 32 columns."""
    check(*both(make((2, size[1], size[0], 1, 4), torch.float64)), "fp64")


@pytest.mark.parametrize("kernel", [1, 2, (1, 3), (5, 2), 7])
def test_kernels_of_any_size(kernel: Any) -> None:
    geometry = DCNv3Geometry.make(kernel, padding=3)
    out_h, out_w = geometry.output_size(6, 5)
    sizes = ((2, 6, 5, 2, 5), (2, out_h, out_w, 2, geometry.num_points, 2), (2, out_h, out_w, 2, geometry.num_points))
    check(*both(tuple(torch.randn(size, dtype=torch.float64) for size in sizes), geometry=geometry), "fp64")


def test_equal_to_the_last_bit_for_any_number_of_threads() -> None:
    tensors, before = make((3, 13, 37, 5, 20), torch.float32), torch.get_num_threads()
    grad = torch.randn(3, 13, 37, 5, 20)
    outcomes = []
    try:
        for threads in (1, 2, 3, 7, 2):
            torch.set_num_threads(threads)
            outcome = (forward(tensors), *backward(grad, tensors))
            outcomes.append(outcome)
    finally:
        torch.set_num_threads(before)
    for outcome in outcomes[1:]:
        assert all(torch.equal(one, other) for one, other in zip(outcomes[0], outcome, strict=True))


# PyTorch 2.11's own, at every profile.
@pytest.mark.filterwarnings("ignore:.*Profiler clears events")
def test_slices_of_one_projection_are_not_copied() -> None:
    value, offset, mask = make((2, 5, 7, 3, 4), torch.float32)
    row = torch.cat((offset.flatten(3), mask.flatten(3)), dim=-1)
    offset_view, mask_view = row[..., :54].unflatten(-1, (3, 9, 2)), row[..., 54:].unflatten(-1, (3, 9))
    same = dcnv3(value, offset, mask, normalize="softmax")

    def copies(*tensors: torch.Tensor) -> int:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            assert torch.equal(dcnv3(*tensors, normalize="softmax"), same)
        return sum(event.name == "aten::copy_" for event in seen.events())

    assert copies(value, offset_view, mask_view) == 0
    assert copies(value, offset.transpose(1, 2).contiguous().transpose(1, 2), mask_view) == 1


def test_slopes_at_whole_pixels_are_those_to_the_right() -> None:
    value, offset, mask = make((1, 6, 6, 1, 3), torch.float64)
    offset = offset.round()
    grad = torch.randn(1, 6, 6, 1, 3, dtype=torch.float64)
    found, beside = (backward(grad, (value, offset + step, mask))[1] for step in (0.0, 1e-9))
    # At exactly -1 a point is off the map, and just to the right of it is not.
    counts = found.abs().sum(-1) > 0
    assert counts.double().mean() > 0.6
    assert relative_rms(found[counts], beside[counts]) < 1e-7


@pytest.mark.parametrize("name", ["fp64", "fp32", "bf16", "fp16"])
def test_hostile_offsets_read_and_write_nothing_else(name: str) -> None:
    value, offset, mask = make((2, 4, 5, 2, 6), DTYPES[name])
    hostile = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e9, -3e9, 2**31, -1e-40, 5e-324, 65504.0]
    where = torch.rand(offset.shape) < 0.7
    offset[where] = torch.tensor(hostile, dtype=offset.dtype)[torch.randint(len(hostile), (int(where.sum()),))]
    found, expected = both((value, offset, mask))
    assert all(tensor.isfinite().all() for tensor in found)
    # The tiny offsets are whole pixels but for rounding.
    check((*found[:2], expected[2], found[3]), expected, name)


def test_a_point_off_the_map_does_not_see_nan_on_it() -> None:
    value, offset, mask = make((1, 4, 4, 1, 3), torch.float32)
    value[0, 0, 0] = float("nan")
    offset[:] = 50.0
    assert (dcnv3(value, offset, mask, normalize="softmax") == 0).all()
    for filler in (float("nan"), float("inf")):
        mask[0, 0, 0, 0, 4] = filler
        found = dcnv3(value, offset, mask)
        assert torch.equal(found.isnan(), dcnv3_reference(value, offset, mask, GEOMETRY, "none").isnan())


@pytest.mark.parametrize("normalize", ["softmax", "sigmoid"])
def test_logits_of_any_size(normalize: Any) -> None:
    value, offset, mask = make((1, 4, 5, 2, 3), torch.float32)
    mask = mask * torch.tensor([1.0, 20.0, 90.0, 1e3, 1e30])[torch.randint(5, mask.shape)]
    mask[0, 0, 0, 0, :3] = -float("inf")
    found = dcnv3(value, offset, mask, normalize=normalize)
    expected = dcnv3_reference(value.double(), offset.double(), mask.double(), GEOMETRY, normalize)
    assert relative_rms(found, expected) <= TOLERANCE["fp32"][0]
    mask[0, 0, 0, 0, 3] = float("nan")
    found = dcnv3(value, offset, mask, normalize=normalize)
    assert found[0, 0, 0, 0].isnan().all()
    assert found[0, 1:].isfinite().all()


class Samples(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return dcnv3(*make((1, 16, 16, 4, 16), torch.float32))


def use_it(queue: Any) -> None:
    # Nothing else here may ask for threads: PyTorch's own operators do hang in such a child.
    queue.put(float(dcnv3(*make((1, 16, 16, 4, 16), torch.float32))[0, 0, 0, 0, 0]))


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_after_use_does_not_hang() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert dcnv3(*make((1, 16, 16, 4, 16), torch.float32)).shape == (1, 16, 16, 4, 16)
        loader = DataLoader(Samples(), batch_size=2, num_workers=2, multiprocessing_context="fork")
        assert [batch.shape[0] for batch in loader] == [2, 2]
        # A child that did not set the number of its threads, as loaders do.
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=use_it, args=(queue,), daemon=True)
        child.start()
        assert isinstance(queue.get(timeout=30), float)
        child.join(timeout=30)
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


def test_called_past_the_public_function_it_still_checks() -> None:
    """`torch.ops.internimage.dcnv3` is open to everyone: nothing may be read where nothing is."""
    value, offset, mask = make((1, 4, 5, 2, 3), torch.float32)
    dcnv3(value, offset, mask)
    settings = (*GEOMETRY.arguments, "none")
    for wrong in (
        (value, offset[:, :2], mask),
        (value, offset, mask[..., :8]),
        (value, offset[..., :1], mask),
        (value, offset.double(), mask),
        (value[0], offset, mask),
        (value.int(), offset.int(), mask.int()),
        (value[:, :, :, :0], offset[:, :, :, :0], mask[:, :, :, :0]),
    ):
        with pytest.raises(RuntimeError, match="dcnv3: "):
            torch.ops.internimage.dcnv3(*wrong, *settings)
    with pytest.raises(RuntimeError, match="the gradient doesn't fit the output"):
        torch.ops.internimage.dcnv3_backward(value[:, 1:], value, offset, mask, *settings)


def test_a_giant_image_goes_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_INT32", 100)
    value, offset, mask = make((1, 4, 5, 2, 3), torch.float64)
    expected = dcnv3_reference(value, offset, mask, GEOMETRY, "none")
    assert torch.equal(dcnv3(value, offset, mask), expected)
    assert "an image has 2^31 elements or more" in explain_dcnv3(value)


@pytest.mark.slow
def test_more_than_two_to_the_31_elements() -> None:
    batch = 2**16 + 1
    value = torch.zeros(batch, 4, 4, 1, 2048, dtype=torch.bfloat16)
    value[-1] = torch.randn(4, 4, 1, 2048).to(torch.bfloat16)
    offset, mask = torch.rand(batch, 4, 4, 1, 1, 2).to(torch.bfloat16), torch.ones(batch, 4, 4, 1, 1).to(torch.bfloat16)
    found = dcnv3(value, offset, mask, kernel_size=1, padding=0)
    expected = dcnv3(value[-1:], offset[-1:], mask[-1:], kernel_size=1, padding=0)
    assert torch.equal(found[-1:], expected)
    assert expected.abs().sum() > 0
