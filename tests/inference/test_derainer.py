"""`Derainer`: PIL images, arrays and tensors come back as what they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rgsud_lib
from rgsud_lib.errors import BundleError, ConfigError
from rgsud_lib.inference import Derainer, derain_image, memory
from rgsud_lib.inference.address import local_model

HEIGHT, WIDTH = 37, 53


class Darker(nn.Module):
    """Takes a quarter of the light away."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 0.75


@pytest.fixture(scope="module")
def darker() -> Derainer:
    return Derainer(Darker(), "cpu")


def samples(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def darkened(array: np.ndarray) -> np.ndarray:
    darker = array.astype(float) * 0.75
    return darker if array.dtype.kind == "f" else np.round(darker)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (4,)])
def test_an_array_comes_back_in_its_type_and_shape(darker: Derainer, shape: tuple[int, ...], dtype: type) -> None:
    image = samples(HEIGHT, WIDTH, *shape, dtype=dtype)
    before = image.copy()
    output = darker(image)
    assert output.dtype == dtype and output.shape == image.shape
    assert np.array_equal(image, before)
    colours = slice(None) if shape in ((), (1,), (3,)) else slice(0, -1)
    difference = np.abs(output.astype(float) - darkened(image))
    assert (difference[..., colours] if shape else difference).max() <= (
        1 if np.issubdtype(dtype, np.integer) else 1e-3
    )
    if shape in ((2,), (4,)):
        assert np.array_equal(output[..., -1], image[..., -1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "I;16", "P", "CMYK", "1"])
def test_a_pil_image_comes_back_in_its_mode(darker: Derainer, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(samples(HEIGHT, WIDTH, dtype=np.uint16))
    else:
        image = Image.fromarray(samples(HEIGHT, WIDTH, 4), "RGBA").convert("RGB" if mode == "CMYK" else mode)
        image = image.convert(mode)
    image.info["icc_profile"] = b"profile"
    output = darker(image)
    expected = {"P": "RGBA" if image.has_transparency_data else "RGB", "CMYK": "RGB", "1": "RGB"}.get(mode, mode)
    assert (output.mode, output.size, output.info["icc_profile"]) == (expected, image.size, b"profile")
    if mode == "RGBA":
        assert np.array_equal(np.array(output)[..., 3], np.array(image)[..., 3])


def test_tensors_come_back_in_their_shape_and_type(darker: Derainer) -> None:
    for tensor in (torch.rand(3, HEIGHT, WIDTH), torch.rand(2, 3, HEIGHT, WIDTH), torch.rand(3, 8, 9).double()):
        output = darker(tensor)
        assert output.shape == tensor.shape and output.dtype == tensor.dtype
        torch.testing.assert_close(output, tensor * 0.75)


def test_all_kinds_agree_with_the_tile_path(derainer: nn.Module) -> None:
    image = samples(HEIGHT, WIDTH, 3)
    whole = Derainer(derainer, "cpu")
    expected = derain_image(derainer, image, 512, 32)
    assert np.array_equal(whole(image), expected)
    assert np.array_equal(np.array(whole(Image.fromarray(image))), expected)
    tensor = torch.from_numpy(image).permute(2, 0, 1) / 255
    assert np.array_equal((whole(tensor) * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    halved = Derainer(derainer, "cpu", half=True)(image)
    assert 0 < np.abs(halved.astype(int) - expected).max() <= 1 or np.array_equal(halved, expected)


def test_strength_blends_and_zero_gives_back_the_picture(darker: Derainer) -> None:
    for dtype in (np.uint8, np.uint16):
        image = samples(HEIGHT, WIDTH, 3, dtype=dtype)
        assert np.array_equal(darker(image, strength=0), image)
        assert np.abs(darker(image, strength=0.5).astype(int) - image * 0.875).max() <= 0.51
    tensor = torch.rand(3, 8, 9)
    torch.testing.assert_close(darker(tensor, strength=0.5), tensor * 0.875)
    with pytest.raises(ConfigError, match="strength=1.5: expected 0 .* to 1"):
        darker(image, strength=1.5)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((8, 8, 3), int), TypeError, "samples of int64; expected uint8, uint16 or floats"),
        (np.zeros((8, 8, 5), np.uint8), ValueError, r"shape \(8, 8, 5\); expected H x W"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), 255.0), ValueError, "divide by 255"),
        (np.full((8, 8, 3), np.nan), ValueError, "finite"),
        (torch.zeros(8, 8, 3), ValueError, "expected B x 3 x H x W"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), TypeError, "expected a float tensor"),
        ("rainy.jpg", TypeError, "image is str; expected a PIL image"),
    ],
)
def test_what_is_no_picture_is_refused(darker: Derainer, image: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        darker(image)


def test_loads_from_file_and_folder(derainer: nn.Module, model_file: Path) -> None:
    image = samples(HEIGHT, WIDTH, 3)
    expected = Derainer(derainer, "cpu")(image)
    assert np.array_equal(Derainer.load(model_file / "derainer.safetensors", "cpu")(image), expected)
    assert np.array_equal(rgsud_lib.Derainer.load(workdir=model_file, device="cpu")(image), expected)
    with pytest.raises(ConfigError, match="tile='big': expected auto or a number of pixels"):
        Derainer.load(model_file, tile="big")
    with pytest.raises(ConfigError, match="tile 64 with overlap 32"):
        Derainer.load(model_file, tile=64)


def halving_onnx(outputs: int = 1) -> bytes:
    """An ONNX graph that takes half of the light away."""
    shape = ["batch", 3, "height", "width"]
    names = ["rainy", *(f"derained{index}" for index in range(outputs))]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in names]
    half = onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.5])
    nodes = [onnx.helper.make_node("Mul", ["rainy", "half"], [name]) for name in names[1:]]
    graph = onnx.helper.make_graph(nodes, "graph", values[:1], values[1:], [half])
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_loads_onnx(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(halving_onnx())
    image = samples(600, WIDTH, 3)  # in tiles
    assert np.abs(Derainer.load(file, "cpu", mirror=True)(image).astype(int) - image * 0.5).max() <= 0.51
    file.write_bytes(halving_onnx(outputs=2))
    with pytest.raises(BundleError, match="expected one each"):
        Derainer.load(file)
    file.write_bytes(b"not onnx")
    with pytest.raises(BundleError, match="not a readable ONNX file"):
        Derainer.load(file)


def test_research_weights_of_a_checkout_are_the_last_resort(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BundleError, match="no model at"):
        local_model(None, tmp_path / "nothing")
    monkeypatch.setattr("rgsud_lib.inference.address.RESEARCH", model_file)
    assert local_model(None, tmp_path / "nothing") == model_file / "derainer.safetensors"
    assert "for research only" in caplog.text


def test_the_tile_follows_from_the_free_memory(derainer: nn.Module) -> None:
    per_pixel = memory.bytes_per_pixel(derainer, torch.device("cpu"))
    assert 8 * 4 * 4 < per_pixel < 8 * 4 * 20, per_pixel  # a few tensors of 8 to 16 channels of float32
    needed = 2 * memory.SCRATCH * per_pixel
    assert [memory.choose_tile(per_pixel, needed * tile**2) for tile in memory.TILES] == list(memory.TILES)
    assert memory.choose_tile(per_pixel, needed * 512**2 - 1) == 384
    assert memory.choose_tile(per_pixel, 0) == 128
    assert memory.bytes_per_pixel(Darker(), torch.device("cpu")) == memory.UNKNOWN


def test_the_container_limits_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    whole = memory.available_memory(torch.device("cpu"))
    (tmp_path / "memory.max").write_text("3000\n")
    assert memory.available_memory(torch.device("cpu")) == 2000 < whole


def test_the_package_imports_without_torch() -> None:
    code = "import sys, rgsud_lib; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Rainer'"):
        rgsud_lib.Rainer  # noqa: B018
