from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rgsud_lib.config import DerainerConfig
from rgsud_lib.errors import BundleError, ConfigError, DataError
from rgsud_lib.inference import (
    Mirrored,
    derain,
    derain_image,
    derain_path,
    load_derainer,
    save_derainer,
    weights_digest,
)
from rgsud_lib.networks import build_derainer

ROOT = Path(__file__).parents[1]
SMALL = DerainerConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1))


class Local(nn.Module):
    """Darkens by a 3 x 3 blur: tiles with any overlap can reproduce the whole image's inner pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def forward(self, images: Tensor) -> Tensor:
        self.largest = max(self.largest, images.shape[-1] * images.shape[-2])
        padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
        return nn.functional.avg_pool2d(padded, 3, stride=1) - 0.05


class Identity(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


@pytest.fixture()
def derainer() -> nn.Module:
    torch.manual_seed(0)
    model = build_derainer(SMALL)
    for parameter in model.parameters():  # away from the identity start, so that every weight matters
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("shape", [(64, 64), (65, 200), (130, 63), (301, 157), (20, 500)])
@pytest.mark.parametrize("overlap", [0, 7, 16])
def test_tiles_add_up_to_the_image(shape: tuple[int, int], overlap: int) -> None:
    image = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(derain(Identity(), image, tile=64, overlap=overlap), image, atol=1e-6)


def test_tiled_equals_whole_for_a_local_network_but_for_tile_borders() -> None:
    image = torch.rand(1, 3, 150, 220, generator=torch.Generator().manual_seed(2))
    model = Local()
    whole = derain(model, image, tile=256, overlap=16)
    assert model.largest == 150 * 220
    model.largest = 0
    tiled = derain(model, image, tile=64, overlap=16)
    assert model.largest == 64 * 64
    # A tile's outermost pixel sees a padded border; its blending weight there is 1 in 17.
    assert (tiled - whole).abs().max() < 1.5 / 17
    assert (tiled - whole).abs().mean() < 2e-3


def test_the_ramp_has_no_step() -> None:
    class OwnMean(nn.Module):  # each tile gets another constant: the worst case for seams
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(-1, -2), keepdim=True).expand_as(images)

    image = torch.linspace(0, 1, 200).expand(1, 3, 60, 200).contiguous()
    row = derain(OwnMean(), image, tile=64, overlap=20)[0, 0, 30]
    assert row.diff().abs().max() < 1.5 * (row.max() - row.min()) / 3 / 20


def test_uint8_and_tensor_paths_agree(derainer: nn.Module) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    from rgsud_lib.data.images import to_tensor, to_uint8

    expected = to_uint8(derain(derainer, to_tensor(image), tile=64, overlap=8))[0]
    assert np.array_equal(derain_image(derainer, image, tile=64, overlap=8), expected)


def test_output_is_clamped_without_gradient_and_checks_its_settings(derainer: nn.Module) -> None:
    class Loud(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * 4 - 1

    output = derain(Loud(), torch.rand(1, 3, 32, 32), tile=64, overlap=8)
    assert (output.min(), output.max()) == (0, 1)
    assert not derain(derainer, torch.rand(1, 3, 32, 32), tile=64, overlap=8).requires_grad
    with pytest.raises(ConfigError, match="tile 64 with overlap 32"):
        derain(derainer, torch.rand(1, 3, 32, 32), tile=64, overlap=32)
    with pytest.raises(ValueError, match="spans"):
        derain(derainer, torch.full((1, 3, 32, 32), 255.0), tile=64, overlap=8)


def test_saved_model_comes_back_bit_for_bit(derainer: nn.Module, tmp_path: Path) -> None:
    save_derainer(derainer, SMALL, tmp_path / "derainer.safetensors", {"dataset": "abc"})
    for path in (tmp_path / "derainer.safetensors", tmp_path):
        loaded = load_derainer(path)
        assert not loaded.training
        assert weights_digest(loaded.state_dict()) == weights_digest(derainer.state_dict())
        image = torch.rand(1, 3, 37, 41)
        assert torch.equal(loaded(image), derainer(image))
    with safe_open(tmp_path / "derainer.safetensors", framework="pt") as file:
        metadata = json.loads(file.metadata()["rgsud"])
    assert metadata["dataset"] == "abc"
    assert json.loads(metadata["derainer"]) == SMALL.model_dump(mode="json")
    assert [path.name for path in tmp_path.iterdir()] == ["derainer.safetensors"]


def test_work_folder_means_its_exported_model(derainer: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    save_derainer(derainer, SMALL, tmp_path / "export" / "rgsud-derainer.safetensors")
    assert load_derainer(tmp_path).training is False
    save_derainer(derainer, SMALL, tmp_path / "export" / "other.safetensors")
    with pytest.raises(BundleError, match="several models .*other.safetensors, rgsud-derainer.safetensors"):
        load_derainer(tmp_path)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model at .*nowhere"):
        load_derainer(tmp_path / "nowhere")


def test_flipped_byte_in_the_weights(derainer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    save_derainer(derainer, SMALL, path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="was altered after it was written"):
        load_derainer(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"\xff" * 50, b"{}" * 30])
def test_not_a_safetensors_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_derainer(path)


def test_truncated_file(derainer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    save_derainer(derainer, SMALL, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_derainer(path)


def test_another_architecture_or_a_foreign_file(derainer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "derainer.safetensors"
    save_derainer(derainer, DerainerConfig(width=12, encoder=(1, 1), middle=1, decoder=(1, 1)), path)
    with pytest.raises(BundleError, match="weights do not fit the architecture"):
        load_derainer(path)
    weights = load_file(path)
    metadata = {"format": "rgsud-derainer-1", "derainer": '{"name": "resnet"}'}
    metadata["weights_digest"] = weights_digest(weights)
    save_file(weights, path, {"rgsud": json.dumps(metadata)})
    with pytest.raises(BundleError, match="weights do not fit the architecture"):
        load_derainer(path)
    save_file(weights, path)
    with pytest.raises(BundleError, match="format None, expected 'rgsud-derainer-1'"):
        load_derainer(path)


@pytest.fixture()
def model_file(derainer: nn.Module, tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    save_derainer(derainer, SMALL, tmp_path / "model" / "derainer.safetensors")
    return tmp_path / "model"


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (40, 53)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_derains_one_image_to_a_file_or_into_a_folder(derainer: nn.Module, model_file: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "rainy.bmp")
    expected = derain_image(derainer, image, tile=1024, overlap=64)
    assert derain_path(tmp_path / "rainy.bmp", tmp_path / "clean.png", model_file) == [tmp_path / "clean.png"]
    assert np.array_equal(read(tmp_path / "clean.png"), expected)
    assert derain_path(tmp_path / "rainy.bmp", tmp_path / "out", model_file) == [tmp_path / "out" / "rainy.png"]
    derain_path(tmp_path / "rainy.bmp", tmp_path / "clean.jpg", model_file)
    with Image.open(tmp_path / "clean.jpg") as jpeg:
        assert (jpeg.format, jpeg.size) == ("JPEG", (53, 40))


def test_derains_a_folder_past_bad_files(model_file: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "deep" / "b.webp", seed=1)
    (tmp_path / "in" / "bad.jpg").write_text("not an image")
    (tmp_path / "in" / "notes.txt").write_text("passed over")
    with pytest.raises(DataError, match=r"1 of 3 images could not be derained.*\n.*bad\.jpg: not an image"):
        derain_path(tmp_path / "in", tmp_path / "out", model_file)
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "deep/b.png"]


def test_does_not_overwrite_unless_told(model_file: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "b.png", seed=1)
    kept = save_image(tmp_path / "out" / "b.png", seed=2)
    with pytest.raises(DataError, match=r"b\.png exists"):
        derain_path(tmp_path / "in", tmp_path / "out", model_file)
    assert not (tmp_path / "out" / "a.png").exists()
    assert np.array_equal(read(tmp_path / "out" / "b.png"), kept)
    derain_path(tmp_path / "in", tmp_path / "out", model_file, overwrite=True)
    assert not np.array_equal(read(tmp_path / "out" / "b.png"), kept)


def test_refuses_what_leads_nowhere(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        derain_path(tmp_path / "empty", tmp_path / "out", model_file)
    with pytest.raises(DataError, match="does not exist"):
        derain_path(tmp_path / "nowhere", tmp_path / "out", model_file)
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "a.jpg")
    with pytest.raises(DataError, match=r"would both become .*a\.png"):
        derain_path(tmp_path / "in", tmp_path / "out", model_file)


MEMORY_SCRIPT = """
import resource, sys
import numpy as np, torch
from torch import nn
from rgsud_lib.inference import derain_image
torch.set_num_threads(1)
model = nn.Conv2d(3, 3, 3, padding=1).eval()
derain_image(model, np.zeros((600, 600, 3), np.uint8), 512, 32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = np.zeros((3000, 4000, 3), np.uint8)
derain_image(model, image, 512, 32)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_twelve_megapixels_at_bounded_memory() -> None:
    """Input, result and two strips of tiles: the image as one float tensor alone would be 144 MB, its output too."""
    done = subprocess.run([sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) < 220


def test_mirrored_does_not_depend_on_left_and_right():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    image = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        both = Mirrored(network)
        torch.testing.assert_close(both(image.flip(-1)).flip(-1), both(image))
        torch.testing.assert_close(both(image), (network(image) + network(image.flip(-1)).flip(-1)) / 2)
        assert not torch.allclose(network(image.flip(-1)).flip(-1), network(image))
