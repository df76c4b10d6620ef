"""Finding weights: the weight table, hand-placed files, the hub and its cache, and what is said without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from internimage import InternImageClassifier, InternImageConfig, create_model, load_checkpoint, save_checkpoint
from internimage.model import WEIGHTS, Weights
from internimage.model.checkpoints.convert import to_huggingface, to_official
from internimage.model.checkpoints.hub import locate, weights_folder
from internimage.model.weights import default_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Image size and ImageNet-1k accuracy in percent, from the authors' table.
PUBLISHED = {
    "t": (224, 83.5),
    "s": (224, 84.2),
    "b": (224, 84.9),
    "l": (384, 87.7),
    "xl": (384, 88.0),
    "h": (640, 89.6),
    "g": (512, 90.1),
}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, an empty cache, and a folder for hand-placed files; the environment is read at import."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INTERNIMAGE_WEIGHTS", str(tmp_path / "placed"))
    (tmp_path / "placed").mkdir()
    return tmp_path


def cached(cache: Path, repository: str) -> Path:
    """The folder of a repository in the hub's cache, as if it had been downloaded."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    return folder / "snapshots" / COMMIT


def write_in_parts(network: InternImageClassifier, folder: Path) -> None:
    """As transformers saves a large model: parts, and an index of what is where."""
    state = to_huggingface(network.state_dict())
    place = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(state)}
    for part in set(place.values()):
        save_file({key: state[key] for key in state if place[key] == part}, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))


@pytest.mark.parametrize("row", WEIGHTS.values(), ids=WEIGHTS)
def test_rows_of_the_weight_table(row: Weights) -> None:
    assert re.fullmatch(r"(flash_)?internimage_(t|s|b|l|xl|h|g)\.\w+_\d+", row.name)
    is_flash = row.name.startswith("flash_")
    assert WEIGHTS[row.name] is row
    assert InternImageConfig.from_variant(row.model).num_classes == 1000
    assert row.name.endswith(f"_{row.image_size}")
    assert row.file.endswith(f"{row.image_size}.pth")
    assert row.image_size in (224, 384, 512, 640)
    last = row.name.split(".")[1].split("_")[-2]
    assert row.num_classes == {"in1k": 1000, "in22k": 21841, "inat18": 8142}[last]
    # iNaturalist's was measured with the date and place of each image, which this network does not take.
    assert (row.top1 is None) == (last != "in1k")
    assert row.top1 is None or 83 < row.top1 < 91
    repository = "OpenGVLab/DCNv4" if is_flash else "OpenGVLab/InternImage"
    assert row.url == f"https://huggingface.co/{repository}/resolve/main/{row.file}"
    assert row.model_repository is None or row.model_repository.startswith("OpenGVLab/internimage_")
    assert row.model_repository is None or not is_flash
    assert row.licence == "MIT"


def test_the_weight_table_is_whole() -> None:
    # 12 of InternImage, 5 of FlashInternImage.
    assert len(WEIGHTS) == 17
    assert len({row.file for row in WEIGHTS.values()}) == 17
    assert len({row.model_repository for row in WEIGHTS.values()} - {None}) == 11
    models = {f"internimage_{variant}" for variant in PUBLISHED} | {
        f"flash_internimage_{variant}" for variant in "tsbl"
    }
    assert {row.model for row in WEIGHTS.values()} == models


@pytest.mark.parametrize("variant", PUBLISHED)
def test_the_default_is_the_published_imagenet_model(variant: str) -> None:
    row = default_weights(f"internimage_{variant}")
    assert (row.image_size, row.num_classes, row.top1) == (PUBLISHED[variant][0], 1000, PUBLISHED[variant][1])


def test_names_of_the_table_build_their_model() -> None:
    with torch.device("meta"):
        assert create_model("internimage_l.in22k_384").num_classes == 21841
        assert create_model("internimage_h.in22k_inat18_384", features_only=True).config.num_classes == 8142
    with pytest.raises(
        ValueError,
        match=r"no released weights for 'internimage_nano'; there are some for flash_internimage_b, .*_xl",
    ):
        default_weights("internimage_nano")


@pytest.mark.parametrize("name", ["internimage_t", "internimage_t.in1k_224"])
def test_offline_says_what_to_download_and_where_to_put_it(name: str, offline: Path) -> None:
    file = offline / "placed" / "internimage_t_1k_224.pth"
    with pytest.raises(ConnectionError) as caught:
        create_model(name, pretrained=True)
    message = str(caught.value)
    assert "internimage_t.in1k_224 could not be downloaded" in message
    assert "https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth" in message
    assert f"put it at {file}" in message


def test_a_file_placed_there_is_found(offline: Path) -> None:
    model = create_model("internimage_t").bfloat16()
    torch.save({"model": to_official(model.state_dict())}, offline / "placed" / "internimage_t_1k_224.pth")
    loaded = create_model("internimage_t", pretrained=True)
    assert torch.equal(loaded.head.fc.weight, model.head.fc.weight.float())
    features = create_model("internimage_t.in1k_224", pretrained=True, features_only=True)
    assert torch.equal(features.stem.conv1.weight, model.backbone.stem.conv1.weight.float())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cascade_internimage_xl_coco_3x", "cascade_internimage_xl_fpn_3x_coco.pth"),
        ("upernet_internimage_t_ade20k_512", "upernet_internimage_t_512_160k_ade20k.pth"),
    ],
)
def test_detectors_and_segmenters_have_names_too(name: str, file: str, offline: Path) -> None:
    with pytest.raises(ConnectionError, match=rf"{name} could not be downloaded .*resolve/main/{file}"):
        locate(name)
    (offline / "placed" / file).touch()
    assert locate(name) == offline / "placed" / file


def test_where_files_are_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNIMAGE_WEIGHTS", "~/weights")
    assert weights_folder() == Path.home() / "weights"
    monkeypatch.delenv("INTERNIMAGE_WEIGHTS")
    assert weights_folder() == Path.home() / ".cache" / "internimage"


def test_a_released_file_in_the_cache(offline: Path) -> None:
    snapshot = cached(offline / "cache", "OpenGVLab/InternImage")
    (snapshot / "internimage_t_1k_224.pth").write_bytes(b"")
    assert locate("internimage_t.in1k_224") == snapshot / "internimage_t_1k_224.pth"


@pytest.mark.parametrize("repository", ["owner/name", "owner/internimage_t.in1k"])
def test_a_hub_model_in_the_cache(repository: str, offline: Path, network: InternImageClassifier) -> None:
    snapshot = cached(offline / "cache", repository)
    save_checkpoint(network, snapshot / "model.safetensors")
    model = create_model(network.config)
    load_checkpoint(model, repository)
    assert torch.equal(model.head.fc.bias, network.head.fc.bias)


def test_a_hub_model_in_parts_in_the_cache(offline: Path, network: InternImageClassifier) -> None:
    snapshot = cached(offline / "cache", "owner/name")
    write_in_parts(network, snapshot)
    (snapshot / "config.json").write_text("{}")
    assert locate("owner/name").name == "model.safetensors.index.json"
    assert torch.equal(create_model(network.config, pretrained="owner/name").head.fc.bias, network.head.fc.bias)


def test_a_hub_model_whose_settings_are_not_here(offline: Path, network: InternImageClassifier) -> None:
    """Weights that don't describe themselves would be read without their settings, unless there are none."""
    write_in_parts(network, cached(offline / "cache", "owner/name"))
    with pytest.raises(ConnectionError, match=r"LocalEntryNotFoundError.*Download model.safetensors and config.json"):
        locate("owner/name")
    asked = offline / "cache" / "models--owner--name" / ".no_exist" / COMMIT
    asked.mkdir(parents=True)
    (asked / "config.json").touch()
    assert locate("owner/name").is_file()


def test_a_hub_model_that_is_not_here(offline: Path) -> None:
    with pytest.raises(ConnectionError, match=r"https://huggingface\.co/owner/name into one folder and pass that"):
        locate("owner/name")


@pytest.mark.parametrize(
    "name", ["internimage_q", "internimage_t", "runs/best.pth", "runs/best", "./owner/name", "a/b/c", "a/b.json"]
)
def test_names_of_nothing(name: str, offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(offline)
    (offline / "runs").mkdir()
    with pytest.raises(ValueError, match=f"no weights at {re.escape(name)}: no such file, and no such name"):
        locate(name)


def test_a_path_goes_before_a_name(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(offline)
    (offline / "owner" / "name").mkdir(parents=True)
    assert locate("owner/name") == Path("owner/name")


class Hub(SimpleHTTPRequestHandler):
    """As much of the hub as a download needs: a commit, an entity tag, and its way to say "no such file"."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("/resolve/main/", "/"))

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{abs(hash(self.path)):x}"')
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.send_response(code)
        gated, known = "owner/gated/" in self.path, Path(self.translate_path(self.path)).parent.is_dir()
        kind = "GatedRepo" if gated else "EntryNotFound" if known else "RepoNotFound"
        self.send_header("X-Error-Code", kind)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a local hub serves, and the hub's address."""
    folder = tmp_path / "hub"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_downloading_from_a_hub(hub: tuple[Path, str], network: InternImageClassifier, tmp_path: Path) -> None:
    """A real download, in a process of its own because the hub's address is read at import."""
    folder, address = hub
    save_checkpoint(network, folder / "owner" / "ours" / "model.safetensors")
    (folder / "owner" / "ours" / "model.json").unlink()
    (folder / "owner" / "pickled").mkdir()
    torch.save(to_huggingface(network.state_dict()), folder / "owner" / "pickled" / "pytorch_model.bin")
    (folder / "owner" / "pickled" / "config.json").write_text("{}")
    (folder / "owner" / "split").mkdir()
    write_in_parts(network, folder / "owner" / "split")
    (folder / "owner" / "empty").mkdir()
    program = """
from internimage.model import read_checkpoint
from internimage.model.checkpoints.hub import locate
for name in ("owner/ours", "owner/pickled", "owner/split", "owner/empty", "owner/mistyped", "owner/gated"):
    try:
        found = read_checkpoint(locate(name))
        beside = (found.path.parent / "config.json").is_file()
        print(name, found.origin, len(found.state), found.card is not None, beside)
    except (ValueError, ConnectionError) as error:
        print(type(error).__name__, str(error).split(";")[0].split(".")[0])
"""
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    count = len(network.state_dict())
    assert done.stdout.splitlines() == [
        f"owner/ours ours {count} True False",
        f"owner/pickled huggingface {count} False True",
        f"owner/split huggingface {count} False False",
        "ValueError owner/empty has none of model",
        "ValueError no weights at owner/mistyped: no such file, and no such repository on the hub",
        "ConnectionError owner/gated could not be downloaded (GatedRepoError)",
    ], done.stderr
