from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from rgsud_lib.data.images import to_tensor
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.rewards import pyiqa_backed
from rgsud_lib.rewards.niqe import Niqe
from rgsud_lib.rewards.pyiqa_backed import PyiqaScorer


def scenes(count: int = 3, side: int = 96) -> torch.Tensor:
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pyiqa without network and with an empty folder of weights."""
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    with pyiqa_backed._quiet():
        import huggingface_hub
        from pyiqa.utils import download_util
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(pyiqa_backed, "_online", lambda address: False)
    return tmp_path


def plant_brisque(cache: Path, seed: int) -> None:
    """A made-up support vector machine where pyiqa looks for BRISQUE's."""
    generator = torch.Generator().manual_seed(seed)
    machine = torch.rand(1, 40, generator=generator), torch.rand(40, 36, generator=generator)
    torch.save(machine, cache / "brisque_svm_weights.pth")


def test_direction_follows_pyiqa(cache: Path) -> None:
    import pyiqa

    images = scenes()
    for metric, sign in (("piqe", -1), ("entropy", 1)):
        scorer = PyiqaScorer(metric)
        native = pyiqa.create_metric(metric, device="cpu")
        assert scorer.name == f"pyiqa:{metric}"
        assert scorer.higher_is_better == (sign > 0)
        assert scorer(images).tolist() == [sign * native(image[None]).item() for image in images]


def test_batch_of_one_equals_batch_of_many_and_outside_randomness_is_left_alone(cache: Path) -> None:
    scorer = PyiqaScorer("piqe")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    scores = scorer(scenes())
    assert torch.equal(torch.rand(3), expected)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [scorer(image[None]).item() for image in scenes()]


def test_randomness_inside_is_the_same_at_every_call(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = PyiqaScorer("piqe")
    monkeypatch.setattr(scorer.model.net, "forward", lambda image: image.mean() + torch.rand(()))
    assert scorer(scenes()).tolist() == scorer(scenes()).tolist()


def test_two_processes_give_the_same_bits_and_version_in_silence(cache: Path) -> None:
    code = (
        "import torch; from rgsud_lib.rewards.pyiqa_backed import PyiqaScorer; scorer = PyiqaScorer('piqe')\n"
        "image = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))\n"
        "print(scorer(image).item().hex(), scorer.version)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    scorer = PyiqaScorer("piqe")
    image = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    assert other.stdout == f"{scorer(image).item().hex()} {scorer.version}\n"
    assert [line[:17] for line in other.stderr.splitlines()] == ["pyiqa is licensed"]


def test_version_follows_metric_and_weights(cache: Path) -> None:
    plant_brisque(cache, seed=0)
    first, again = PyiqaScorer("brisque").version, PyiqaScorer("brisque").version
    plant_brisque(cache, seed=1)
    versions = {first, PyiqaScorer("brisque").version, PyiqaScorer("piqe").version, PyiqaScorer("entropy").version}
    assert first == again
    assert len(versions) == 4


def test_weights_hidden_in_lists_count() -> None:
    def digest(weight: float, array: float) -> str:
        network = torch.nn.Linear(2, 2)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        hidden = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(hidden.weight, weight)
        torch.nn.init.zeros_(hidden.bias)
        network.hidden = [hidden]
        network.nested = np.array([(np.full(2, array),)], dtype=[("model", object)])
        return pyiqa_backed._digest(network)

    assert digest(1, 1) == digest(1, 1)
    assert len({digest(1, 1), digest(2, 1), digest(1, 2)}) == 3


def test_niqe_with_the_published_model_agrees_with_ours(cache: Path, shared_data: Path) -> None:
    file = np.load(shared_data / "iqa" / "niqe_pris_params.npz")
    model = {"mu_prisparam": file["mu_pris_param"], "cov_prisparam": file["cov_pris_param"]}
    scipy.io.savemat(cache / "niqe_modelparameters.mat", model)
    image = to_tensor(np.array(Image.open(shared_data / "rain100L" / "rain" / "003.png").convert("RGB")))
    ours = Niqe.from_parameters(file["mu_pris_param"], file["cov_pris_param"])
    assert PyiqaScorer("niqe")(image).item() == pytest.approx(ours(image).item(), abs=0.003)


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        ("brisque", "brisque_svm_weights.pth"),
        ("musiq", "musiq_koniq_ckpt"),
        ("clipiqa", "clip/models/.*RN50.pt into .*hub/clip"),
        ("hyperiqa", "create_metric.*timm/resnet50"),
    ],
)
def test_missing_weights_without_network_are_named_at_once(metric: str, file: str, cache: Path) -> None:
    start = time.monotonic()
    with pytest.raises(BundleError, match=file):
        PyiqaScorer(metric)
    assert time.monotonic() - start < 15


def test_a_failed_download_names_file_and_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("connection reset")

    monkeypatch.setattr(pyiqa_backed, "_online", lambda address: True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(BundleError, match=r"brisque_svm_weights.pth is missing.*from https://.*connection reset"):
        PyiqaScorer("brisque")


def test_nobody_answers() -> None:
    assert not pyiqa_backed._online("http://127.0.0.1:9")


class Payload:
    def __reduce__(self) -> tuple:
        return (print, ("this would have run",))


def test_a_checkpoint_with_code_is_refused(cache: Path, capfd: pytest.CaptureFixture) -> None:
    torch.save(Payload(), cache / "brisque_svm_weights.pth", pickle_module=pickle)
    with pytest.raises(BundleError, match="pyiqa:brisque holds more than weights"):
        PyiqaScorer("brisque")
    assert "this would have run" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("musik", "no metric 'musik'; did you mean musiq.*list all with python -c"),
        ("ssim", "compares with a clean image"),
        ("fid", "sets of images"),
        ("clipscore", "caption"),
        ("compare2score", "runs code that it downloads"),
    ],
)
def test_unsuitable_metrics_are_refused(metric: str, message: str, cache: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        PyiqaScorer(metric)


def test_every_refused_metric_exists(cache: Path) -> None:
    import pyiqa

    assert set(pyiqa_backed.UNFIT) <= set(pyiqa.list_models("NR"))


def test_without_pyiqa_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ConfigError, match="pip install pyiqa"):
        PyiqaScorer("piqe")


def test_license_is_named_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    pyiqa_backed._warn_of_license.cache_clear()
    with caplog.at_level(logging.WARNING, "rgsud"):
        scorer, _ = PyiqaScorer("piqe"), PyiqaScorer("entropy")
    assert [record.message for record in caplog.records if "non-commercial" in record.message] == [
        f"pyiqa is licensed for {scorer.license}; many of its weights are, too"
    ]


def test_images_that_cannot_be_scored(cache: Path) -> None:
    scorer = PyiqaScorer("piqe")
    with pytest.raises(ValueError, match="expected finite values"):
        scorer(scenes() * 255)
    plant_brisque(cache, seed=0)
    with pytest.raises(DataError, match="pyiqa:brisque cannot score 3 x 3 pixels"):
        PyiqaScorer("brisque")(torch.rand(1, 3, 3, 3))
