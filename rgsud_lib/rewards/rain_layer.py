"""Rain layer (ours): what was removed should be light that rain adds, all of it, and no scene.

With r = rainy - output, p = the part of r that is non-negative and alike in all channels, and c = the
correlation of p with the gradient magnitude of the output, the score is

    1000 * (mean(p^2) * (1 - 2 * max(c, 0)) - 10 * mean((r - p)^2)).

The first term grows with the rain that was taken away and shrinks where it follows the scene's edges;
the second charges for colour shifts, darkening and blur. Doing nothing scores 0. Unlike decorrelation
it cannot be pleased by removing less. The constants were chosen by hand on 25 of Rain100L's shared pairs.
"""

from __future__ import annotations

from torch import Tensor

from rgsud_lib.config import digest_of
from rgsud_lib.data.images import check_images
from rgsud_lib.rewards.decorrelation import correlation, gradient_magnitude

SCENE, REST = 2.0, 10.0


class RainLayer:
    """Scorer without a fixed range, higher is better; 0 where nothing was removed."""

    name = "rain_layer"
    higher_is_better = True

    def __init__(self) -> None:
        self.version = digest_of({"name": self.name, "revision": 2, "scene": SCENE, "rest": REST})

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        """Output and rainy B x 3 x H x W in [0,1] to B scores. Raises ValueError on bad images."""
        return self.score_map(output, rainy).mean(dim=(1, 2, 3)).cpu()

    def score_map(self, output: Tensor, rainy: Tensor) -> Tensor:
        """What each pixel adds, B x 1 x H x W; its mean is the score."""
        output, rainy = check_images(output, "output").float(), check_images(rainy, "rainy").float()
        removed = rainy - output
        rain = removed.mean(1, keepdim=True).clamp(min=0)
        scene = correlation(rain[:, 0, 1:-1, 1:-1].flatten(1), gradient_magnitude(output).flatten(1)).clamp(min=0)
        kept = (1 - SCENE * scene).view(-1, 1, 1, 1)
        return 1000 * (rain.square() * kept - REST * (removed - rain).square().mean(dim=1, keepdim=True))
