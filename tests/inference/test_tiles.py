"""Tiles: they add up, their seams are ramps, memory is bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.errors import ConfigError
from rgsud_lib.inference import Mirrored, derain, derain_image

ROOT = Path(__file__).parents[2]


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
