from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from rgsud_lib.bundle import seal
from rgsud_lib.config import Config, load_config
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.data.prepare import prepare_dataset
from rgsud_lib.files import write_json
from rgsud_lib.inference import save_derainer
from rgsud_lib.networks import build_derainer
from rgsud_lib.rewards.pool import RewardPool
from rgsud_lib.storage import s3

torch.set_num_threads(1)  # two test processes on two cores would otherwise wait for each other


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images (RGSUD_TEST_DATA, else ../shared/data beside the repository)."""
    folder = Path(os.environ.get("RGSUD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "rain100L" / "rain").is_dir():
        pytest.skip(f"no real images at {folder}: set RGSUD_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The address of a mock S3 server, which takes any key and secret."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3_bucket(moto_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket of the mock server as `s3://` address; credentials, endpoint and an empty cache are set."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name == "MLFLOW_S3_ENDPOINT_URL"]:
        monkeypatch.delenv(name)
    settings = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "ENDPOINT_URL": moto_server}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("RGSUD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    name = f"b{uuid.uuid4().hex}"
    s3.client().create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def on_request(s3_bucket: str) -> Iterator[Callable[..., None]]:
    """Registers a handler of one of boto3's events for the duration of a test."""
    events, registered = s3.client().meta.events, []

    def register(event: str, handler: Callable[..., object]) -> None:
        events.register(event, handler)
        registered.append((event, handler))

    yield register
    for event, handler in registered:
        events.unregister(event, handler)


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One empty MLflow store to copy: its migrations take seconds."""
    from rgsud_lib.tracking import mlflow_store

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_store.connect(folder)
    return folder / "mlflow.db"


class MiniRun(NamedTuple):
    """A finished tiny run: its configuration and the bundles that the evaluation reads."""

    config: Config
    dataset: Path
    recycled: Path
    reinforced: Path
    unpaired_dataset: Path


def textured(seed: int, height: int = 112, width: int = 130) -> np.ndarray:
    """A smooth random scene with some grain, uint8 H x W x 3."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    grain = 0.06 * torch.randn(1, 1, height, width, generator=generator)
    return ((smooth + grain).clamp(0, 1)[0].permute(1, 2, 0) * 255).byte().numpy()


@pytest.fixture(scope="session")
def mini_run(tmp_path_factory: pytest.TempPathFactory) -> MiniRun:
    """Seven rainy and eight clean scenes, three pairs of which two rainy inputs are trained on; nothing is trained."""
    root = tmp_path_factory.mktemp("mini_run")
    for index in range(15):
        image = textured(index)
        _save(root / "clean" / f"clean{index}.png", image) if index >= 7 else _save_rainy(root / "rainy", index, image)
    for index in (0, 1, 20):
        _save(root / "paired" / "clean" / f"{index}.png", textured(index))
        _save_rainy(root / "paired" / "rain", index, textured(index))
    small = ["derainer.width=8", "evaluation.strips=3", "critic.enabled=false", "reward.scorer=rain_layer"]
    config = load_config("demo", small)
    bundles = []
    for name, paired in (("dataset", str(root / "paired")), ("unpaired", None)):
        folder = root / name
        folder.mkdir()
        prepare_dataset(config.data, str(root / "rainy"), str(root / "clean"), paired, folder)
        seal(folder, "dataset", config.digest("data"))
        bundles.append(folder)
    data = Dataset.open(bundles[0])
    recycled = _train_bundle(root / "recycled", "recycled", config, data, seed=1)
    reinforced = _train_bundle(root / "reinforced", "reinforced", config, data, seed=2)
    return MiniRun(config, bundles[0], recycled, reinforced, bundles[1])


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _save_rainy(folder: Path, index: int, image: np.ndarray) -> None:
    rain = np.zeros(image.shape[:2], np.int64)
    rain[:, index % 5 :: 9] = 60  # upright streaks
    _save(folder / f"{index}.png", np.clip(image + rain[..., None], 0, 255).astype(np.uint8))


def _train_bundle(folder: Path, kind: str, config: Config, data: Dataset, seed: int) -> Path:
    """What a stage leaves behind, with random weights near the identity."""
    folder.mkdir()
    torch.manual_seed(seed)
    derainer = build_derainer(config.derainer)
    for parameter in derainer.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    save_derainer(derainer, config.derainer, folder / "derainer.safetensors")
    if kind == "recycled":
        save_derainer(derainer, config.derainer, folder / "warm_start.safetensors")
    pool = RewardPool(folder / "pool", "decorrelation", "1")
    rows = []
    for step in (10, 20, 30):
        for record in data.select("rainy", "train"):
            pool.offer(record.id, data.image(record.id) // 2, score=-1 / step, step=step)
        rows.append({"step": step, "phase": kind, "validation/psnr_rgb": 20 + step / 10, **pool.statistics()})
    write_json(folder / "pool" / "index.json", pool.index())
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seal(folder, kind, config.digest())
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: two workers then finish together."""
    items.sort(key=lambda item: "slow" not in item.keywords)
