"""The numbers of the GPU benchmark, by hand: bytes, turns, batches, and whether a target is met."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from benchmarks.comparison import Agreement, Row
from benchmarks.memory import Memory
from benchmarks.on_gpu.clock import Reading, compulsory_bytes, rotation_count
from benchmarks.on_gpu.kernels import pack_group_by_group, pack_point_by_point
from benchmarks.on_gpu.measuring import Finding
from benchmarks.on_gpu.targets import Verdict, judge
from benchmarks.on_gpu.training_suite import largest_batch
from benchmarks.timing import Ratio, Timing

from benchmarks.on_gpu import kernels, network_suite, training_suite, tune_suite
from internimage.ops.dcnv3.triton_tuning import Config, ShapeClass


def test_compulsory_bytes_of_t_s_first_stage() -> None:
    positions = 64 * 56 * 56
    # 64 channels in and out, 4 groups of 9 points with two offsets and a weight, two bytes each.
    forward = positions * 2 * (64 + 4 * 9 * 3 + 64)
    assert compulsory_bytes(positions, 4, 16, 9, 2, backward=False) == forward == 94_732_288
    backward = positions * 2 * ((64 + 4 * 9 * 3 + 64) + (64 + 4 * 9 * 3))
    assert compulsory_bytes(positions, 4, 16, 9, 2, backward=True) == forward + backward


@pytest.mark.parametrize(
    ("set_bytes", "expected"), [(94_732_288, 3), (10_000_000, 12), (1_000_000_000, 2), (52_428_800, 3)]
)
def test_inputs_rotate_past_twice_the_cache(set_bytes: int, expected: int) -> None:
    cache = 50 * 2**20
    count = rotation_count(set_bytes, cache)
    assert count == expected
    assert (count - 1) * set_bytes >= 2 * cache, "between two uses of a set at least twice the cache is read"


def test_peers_layouts_hold_the_same_numbers() -> None:
    groups, points = 2, 9
    offset = torch.arange(groups * points * 2, dtype=torch.float32).reshape(1, 1, 1, groups, points, 2)
    mask = 100 + torch.arange(groups * points, dtype=torch.float32).reshape(1, 1, 1, groups, points)
    first = pack_group_by_group(offset, mask)[0, 0, 0]
    assert first.shape == (56,), "54 filled up to a multiple of 8"
    assert first[:18].tolist() == list(range(18))
    assert first[18:27].tolist() == list(range(100, 109))
    assert first[27:29].tolist() == [18, 19]
    assert first[54:].tolist() == [0, 0]
    second = pack_point_by_point(offset, mask)[0, 0, 0]
    assert second[:6].tolist() == [0, 1, 100, 2, 3, 101]


@pytest.mark.parametrize(
    ("capacity", "most", "expected"), [(0, 64, 0), (1, 64, 1), (6, 64, 6), (100, 64, 64), (3, 2, 2)]
)
def test_the_largest_batch(capacity: int, most: int, expected: int) -> None:
    assert largest_batch(lambda batch: batch <= capacity, most) == expected


def row(name: str, ms: float, times: float | None = None, memory: float | None = None, refused: str = "") -> Row:
    ratio = None if times is None else Ratio(times, times, times)
    return Row(name, Timing((ms,) * 3), ratio, refused or None, None if memory is None else Memory(0.0, memory), None)


def finding(
    key: dict[str, str], *rows: Row, share: float | None = None, skipped: tuple[str, str] | None = None
) -> Finding:
    shares = {} if share is None else {kernels.OURS: share}
    readings = {entry.name: Reading(entry.timing, 1.0) for entry in rows}
    missing = () if skipped is None else (skipped,)
    return Finding("work", rows, (Agreement("a", "b", 0.0, 1.0),), missing, key, readings, shares)


def operator_findings(ratios: Sequence[float], passes: str = "forward", dtype: str = "float16") -> list[Finding]:
    found: list[Finding] = []
    for number, times in enumerate(ratios):
        key = {"suite": "operator", "passes": passes, "work": "softmax", "dtype": dtype}
        key |= {"variant": "tb"[number // 4], "stage": str(number % 4 + 1)}
        found.append(finding(key, row(kernels.OURS, 1.0, 1.0), row(kernels.OFFICIAL, times, times), share=times / 4))
    return found


def verdicts(findings: Sequence[Finding], *, quick: bool = False) -> list[Verdict]:
    found = judge(findings, quick=quick)
    assert len(found) == 7
    return found


@pytest.mark.parametrize(
    ("ratios", "status", "words"),
    [
        ([2.5] * 7 + [4.0], "met", "8 of 8 shapes reach it; smallest 2.50"),
        ([3.0] * 7 + [2.4], "missed", "7 of 8 shapes reach it; smallest 2.40 (B's stage 4, float16)"),
        ([3.0] * 4, "not measured", "4 of 8 are missing"),
        ([], "not measured", "the suite operator was not run"),
    ],
)
def test_every_shape_must_reach_the_speed(ratios: list[float], status: str, words: str) -> None:
    verdict = verdicts(operator_findings(ratios))[0]
    assert verdict.status == status
    assert words in verdict.detail


def test_share_of_bandwidth_needs_both_types() -> None:
    half, brain = (operator_findings([2.0] * 8, dtype=name) for name in ("float16", "bfloat16"))
    assert verdicts(half)[3].status == "not measured"
    assert verdicts([*half, *brain])[3].status == "met"
    assert verdicts([*half, *operator_findings([1.9] * 8, dtype="bfloat16")])[3].status == "missed"


def test_a_wrong_peer_decides_nothing_and_the_reason_is_told() -> None:
    key = {
        "suite": "operator",
        "passes": "forward",
        "work": "softmax",
        "dtype": "float16",
        "variant": "t",
        "stage": "1",
    }
    wrong = finding(key, row(kernels.OURS, 1.0, 1.0), row(kernels.OFFICIAL, 9.0, refused="refused: wrong result"))
    assert verdicts([wrong])[0] == Verdict(
        "forward vs official DCNv3 extension (fp16)", ">= 2.5x on every shape", "not measured", "refused: wrong result"
    )
    absent = finding(key, row(kernels.OURS, 1.0, 1.0), skipped=(kernels.OFFICIAL, "no path given"))
    assert verdicts([absent])[0].detail == f"{kernels.OFFICIAL}: no path given"


@pytest.mark.parametrize(
    ("ms", "mib", "status"), [(100.0, 800.0, "met"), (100.0, 810.0, "missed"), (101.0, 500.0, "missed")]
)
def test_training_needs_speed_and_memory_at_once(ms: float, mib: float, status: str) -> None:
    key = {"suite": "training", "variant": "t", "dtype": "bfloat16"}
    official = row(network_suite.OFFICIAL, 150.0, 1.5, 1000.0)
    found = [finding(key, row(network_suite.EAGER, ms, 1.0, mib), official)]
    assert verdicts(found)[4].status == status


def test_inference_is_compared_with_the_better_of_each_rival() -> None:
    key = {"suite": "networks", "variant": "b", "dtype": "float16", "mode": network_suite.COMPILED_TOO}
    rivals = [
        row(network_suite.FLASH, 12.0),
        row(network_suite.FLASH_COMPILED, 11.0),
        row(network_suite.CONVNEXT, 20.0),
        row(network_suite.CONVNEXT_COMPILED, 9.0),
    ]
    assert verdicts([finding(key, row(network_suite.COMPILED, 10.0), *rivals)])[5].status == "met"
    assert verdicts([finding(key, row(network_suite.COMPILED, 10.1), *rivals)])[5].status == "missed"
    alone = finding(key, row(network_suite.COMPILED, 10.0), *rivals[2:], skipped=(network_suite.FLASH, "no path given"))
    assert verdicts([alone])[5].status == "not measured"
    assert "no path given" in verdicts([alone])[5].detail
    early = finding(key | {"mode": network_suite.AS_WRITTEN}, row(network_suite.EAGER, 1.0), *rivals)
    assert verdicts([early])[5].detail == "the suite networks did not come to it"


def test_inference_counts_the_last_comparison_and_names_whom_it_did_not_reach() -> None:
    key = {"suite": "networks", "variant": "b", "dtype": "float16"}
    ours, convnext = row(network_suite.COMPILED, 10.0), row(network_suite.CONVNEXT_COMPILED, 9.5)
    rivals = [row(network_suite.FLASH, 12.0), row(network_suite.CONVNEXT, 20.0), convnext]
    first = finding(key | {"mode": network_suite.COMPILED_TOO}, ours, *rivals)
    assert verdicts([first])[5].status == "not measured"
    assert "FlashInternImage, compiled was not reached" in verdicts([first])[5].detail
    last = key | {"mode": network_suite.EVERYBODY}
    good = finding(last, ours, *rivals, row(network_suite.FLASH_COMPILED, 10.5))
    bad = finding(last, ours, *rivals, row(network_suite.FLASH_COMPILED, 9.0))
    failed = finding(last, ours, *rivals, skipped=(network_suite.FLASH_COMPILED, "does not compile"))
    assert [verdicts([first, finding])[5].status for finding in (good, bad, failed)] == ["met", "missed", "met"]
    assert verdicts([first, good])[5].detail.count("float16") == 2, "each rival once"
    lost = finding(last, *rivals, skipped=(network_suite.COMPILED, "failed while the clock ran: no"))
    assert verdicts([first, lost])[5].detail == verdicts([first])[5].detail, "what was measured before counts"


def test_huge_says_batch_and_memory() -> None:
    good = finding({"suite": "huge", "batch": "6"}, row(training_suite.HUGE, 900.0, memory=70 * 1024))
    assert verdicts([good])[6].status == "met"
    assert verdicts([good])[6].detail == "batch 6, 70.0 GiB, 900 ms a step"
    too_large = finding({"suite": "huge"}, skipped=(training_suite.HUGE, "out of GPU memory"))
    assert verdicts([too_large])[6].status == "missed"


def test_a_quick_run_decides_nothing() -> None:
    assert {verdict.status for verdict in verdicts(operator_findings([9.0] * 8), quick=True)} == {"not measured"}


def test_the_best_configuration_is_best_on_all_shapes_together() -> None:
    key = {"suite": "tune", "arch": "sm_90", "kind": "forward", "itemsize": "2", "group_width": "16", "points": "9"}
    key["few_rows"] = "False"
    first = finding(key, row("(1, 4)", 1.0), row("(2, 4)", 1.2), row("(1, 1)", 0.1, refused="refused: wrong"))
    second = finding(key, row("(1, 4)", 2.0), row("(2, 4)", 1.0), row("(1, 1)", 0.1, refused="refused: wrong"))
    (line,) = tune_suite.summarize([first, second])[2:]
    assert line == "| sm_90 | forward | 2 | 16 | False | 9 | `(2, 4)` | 9.5 % |"
    assert tune_suite.summarize([]) == []


def test_entries_are_written_as_our_table_writes_them() -> None:
    launch = tune_suite.TritonLaunch()
    for config in launch.candidates(ShapeClass("forward", 2, 16, 9)):
        assert eval(launch.entry(config), {"Config": Config}) == config  # the entry itself, written by us
