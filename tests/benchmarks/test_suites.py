"""The suites on the smallest sizes, and that wrong contenders are found out."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import main, parse
from benchmarks.comparison import Result, Row, Settings
from benchmarks.dcnv3 import Implementation, check, implementations
from benchmarks.memory import Memory
from benchmarks.networks import build_network, line_up, random_images, scatter_sampling
from benchmarks.official import OFFICIAL_NAME
from benchmarks.timing import Ratio, Timing, Workload

from benchmarks import dcnv3, exported, models, training
from internimage import create_model
from internimage import dcnv3 as our_dcnv3
from internimage.ops.dcnv3.backends import backend_names

CPU = torch.device("cpu")
FLOAT32, BFLOAT16 = dcnv3.cases(Settings(quick=True))

WRONG_OPERATOR = """
import DCNv3
import pkg_resources

version = float(pkg_resources.get_distribution("DCNv3").version)

def dcnv3_core_pytorch(value, offset, mask, *numbers):
    return 2 * value + 0 * offset.sum() + 0 * mask.sum()
"""


@pytest.fixture
def wrong_checkout(tmp_path: Path) -> Path:
    """A folder laid out as the official repository, with an operator that is something else."""
    operator = tmp_path / "official/classification/ops_dcnv3/functions"
    network = tmp_path / "official/classification/models"
    for folder in (operator, network):
        folder.mkdir(parents=True)
    (operator / "__init__.py").write_text("from .dcnv3_func import dcnv3_core_pytorch\n", encoding="utf-8")
    (operator / "dcnv3_func.py").write_text(WRONG_OPERATOR, encoding="utf-8")
    (network / "intern_image.py").write_text("", encoding="utf-8")
    return tmp_path / "official"


def memory_in_this_process(rebuild: Callable[[], Workload], device: torch.device, threads: int) -> Memory:
    """What the other process does, without the seconds that its start takes; test_comparison.py starts one."""
    pickle.loads(pickle.dumps(rebuild))()()  # noqa: S301 (pickled on the spot)
    return Memory(100.0, 123.0)


def test_a_quick_run_measures_every_backend_and_writes_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.comparison.peak_memory", memory_in_this_process)
    assert main(["--suite", "dcnv3", "--quick", "--rounds", "2", "--threads", "1", "--output", str(tmp_path)]) == 0
    (table,) = tmp_path.glob("*_dcnv3_*.md")
    (numbers,) = tmp_path.glob("*_dcnv3_*.json")
    *results, growth = json.loads(numbers.read_text(encoding="utf-8"))["results"]
    assert len(results) == 4, "forward and both passes, in two dtypes"
    assert [row["name"] for row in growth["rows"]] == ["5 x 5", "10 x 10"]
    for result in results:
        names = [row["name"] for row in result["rows"]]
        assert names[0] == dcnv3.DEFAULT_NAME
        assert {f"internimage, backend {name}" for name in backend_names()} <= {
            *names,
            *(entry["name"] for entry in result["skipped"]),
        }
        assert (dcnv3.TORCHVISION_NAME in names) == ("float32" in result["title"])
        assert all(len(row["timing"]["samples_ms"]) == 2 for row in result["rows"])
        assert len(result["agreements"]) == len(names) * (4 if "backward" in result["title"] else 1)
        assert {entry["name"] for entry in result["skipped"]} >= {OFFICIAL_NAME}
    measured = [row["memory"] for result in results for row in result["rows"] if row["memory"]]
    assert measured == [{"ready_mib": 100.0, "peak_mib": 123.0}], "both passes of the first in float32"
    page = table.read_text(encoding="utf-8")
    assert "no checkout given (--official PATH)" in page
    assert "| 123 (23) |" in page


def test_the_summary_by_hand() -> None:
    def result(title: str, *rows: tuple[str, float, float | None]) -> Result:
        made = [
            Row(n, Timing((ms,), 1), None if ratio is None else Ratio(ratio, ratio, ratio)) for n, ms, ratio in rows
        ]
        return Result(title, tuple(made), (), ())

    results = [
        result("DCNv3 forward, T's stage 1 at 224 (...), float32", ("ours", 1.0, None), (OFFICIAL_NAME, 20.0, 20.0)),
        result("DCNv3 forward, T's stage 2 at 224 (...), float32", ("ours", 1.0, None), (OFFICIAL_NAME, 45.0, 45.0)),
        result("DCNv3 forward, T's stage 1 at 512 (...), float32", ("ours", 1.0, None), (OFFICIAL_NAME, 9.0, 9.0)),
        result(dcnv3._GROWTH, ("10 x 10", 0.002, None), ("20 x 20", 0.016, None)),
    ]
    assert dcnv3.summarize(results) == [
        f"- {OFFICIAL_NAME} takes 30.0 times as long as ours, forward: geometric mean over 2 sizes, 20.0 to 45.0.",
        "- A pixel of 4 groups costs 20 ns at 10 x 10, 40 ns at 20 x 20.",
    ]


@pytest.mark.slow
def test_files_for_other_runtimes_in_a_quick_run(tmp_path: Path) -> None:
    assert main(["--suite", "export", "--quick", "--rounds", "1", "--threads", "1", "--output", str(tmp_path)]) == 0
    (numbers,) = tmp_path.glob("*_export_cpu.json")
    (result,) = json.loads(numbers.read_text(encoding="utf-8"))["results"]
    names = [row["name"] for row in result["rows"]]
    assert names[0] == exported.OURS
    assert {exported.DEFORM_CONV, exported.GRID_SAMPLE, exported.OPENVINO, exported.OPENVINO_INT8} < set(names)
    assert [check["name"] for check in result["agreements"]] == names[1:]
    (page,) = tmp_path.glob("*_export_cpu.md")
    assert "No targets without the official network" in page.read_text(encoding="utf-8")


def test_targets_of_exports_by_hand() -> None:
    rows = [Row(OFFICIAL_NAME, Timing((100.0,), 1))]
    for name, share in ((exported.OURS, 0.3), (exported.DEFORM_CONV, 0.75), (exported.OPENVINO, 0.56)):
        rows.append(Row(name, Timing((100 * share,), 1), Ratio(share, share, share)))
    assert exported.summarize([Result("", tuple(rows), (), ())]) == [
        "- onnxruntime, DeformConv: 0.75 of the official network's time, target 0.75: met.",
        "- OpenVINO, float32: 0.56 of the official network's time, target 0.55: missed.",
    ]


def test_a_wrong_operator_gets_times_but_no_ratio(
    tmp_path: Path, wrong_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.comparison.peak_memory", lambda *_: None)
    output = tmp_path / "results"
    arguments = ["--suite", "dcnv3", "--quick", "--rounds", "1", "--threads", "1", "--output", str(output)]
    assert main([*arguments, "--official", str(wrong_checkout)]) == 1
    (table,) = output.glob("*.md")
    rows = [line for line in table.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {OFFICIAL_NAME}")]
    assert len(rows) == 2
    assert all("refused: results differ" in row for row in rows)
    # The stand-ins for its compiled extension are gone, and so are its packages.
    assert not {"DCNv3", "ops_dcnv3", "ops_dcnv3.functions"} & set(sys.modules)


@pytest.mark.parametrize("case", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_all_implementations_agree_with_the_reference(case: dcnv3.Case) -> None:
    inputs = case.inputs()
    found, _ = implementations(inputs[0], None)
    outputs, gradients = check({name: make() for name, make in found.items()}, inputs, case.limits())
    assert len(gradients) == 3 * len(outputs) == 3 * len(found)
    assert all(agreement.holds for agreement in [*outputs, *gradients]), [*outputs, *gradients]


def test_the_inputs_lie_in_the_map_and_off_the_grid() -> None:
    _, offset, _ = FLOAT32.inputs()
    fraction = offset - offset.floor()
    assert float(fraction.min()) > 0.05
    assert float(fraction.max()) < 0.95
    assert float((offset.abs() < 2).float().mean()) > 0.6


@pytest.mark.parametrize("wrong", ["swapped", "shifted", "unmasked", "doubled gradient"])
def test_a_wrong_implementation_is_found_out(wrong: str) -> None:
    def run(value: torch.Tensor, offset: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        offset = offset.flip(-1) if wrong == "swapped" else offset + (0.01 if wrong == "shifted" else 0.0)
        logits = 0 * logits if wrong == "unmasked" else logits
        if wrong == "doubled gradient":
            value = 2 * value - value.detach()
        return our_dcnv3(value, offset, logits, normalize="softmax")

    inputs = FLOAT32.inputs()
    outputs, gradients = check({"wrong": Implementation(run)}, inputs, FLOAT32.limits())
    assert not all(agreement.holds for agreement in (gradients if wrong == "doubled gradient" else outputs))


def test_networks_agree_only_with_the_same_weights() -> None:
    ours = scatter_sampling(create_model("internimage_femto", num_classes=7)).eval()
    official = copy.deepcopy(ours)
    networks = {"ours": ours, OFFICIAL_NAME: official}
    images, targets = random_images(2, 3, 32, CPU), torch.tensor([0, 1])
    checks = (
        *models.agreements(networks, "ours", images, False),
        *training.agreements(networks, "ours", images, targets),
    )
    assert len(checks) == 3
    assert all(agreement.holds for agreement in checks)
    offsets = next(parameter for name, parameter in official.named_parameters() if name.endswith("dcn.offset.bias"))
    with torch.no_grad():
        offsets.add_(0.3)
    checks = (
        *models.agreements(networks, "ours", images, False),
        *training.agreements(networks, "ours", images, targets),
    )
    assert not any(agreement.holds for agreement in checks), checks


def test_a_network_s_sampling_points_lie_off_the_grid() -> None:
    network = build_network(line_up(Settings(quick=True)).specs[0]).eval()
    seen: list[torch.Tensor] = []
    for name, module in network.named_modules():
        if name.endswith("dcn.offset"):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.inference_mode():
        network(random_images(1, 3, 64, CPU))
    fraction = torch.cat([offset.flatten() for offset in seen]).remainder(1.0)
    assert len(seen) == sum(create_model("internimage_femto").config.depths)
    assert float(fraction.min()) > 0.02
    assert float(fraction.max()) < 0.98


def test_a_training_step_learns() -> None:
    step = training.small_step(4, CPU)
    losses = [float(step()) for _ in range(3)]
    assert losses[2] < losses[0], losses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds and --threads must be at least 1"),
        (["--suite", "speed"], "speed"),
        (["--device", "tpu"], "tpu"),
        (["--official", "."], "classification/ops_dcnv3/functions/dcnv3_func.py is missing"),
    ],
)
def test_wrong_arguments_end_with_a_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
