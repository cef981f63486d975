"""What every method is given in a step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """Crops of one step, each B x 3 x H x W in [0,1]; `reward` None means stage 1.

    Methods that train their derainer on pseudo-pairs mix drawn rain and clean crops into them as the masks say.
    """

    clean: Tensor
    rainy: Tensor
    drawn: Tensor | None = None  # clean + drawn rain, where the warm start or its replay is on
    use_drawn: Tensor | None = None  # B booleans: which pseudo-pairs are drawn instead of generated
    use_clean: Tensor | None = None  # B booleans: which pseudo-pairs are the clean crop itself (do no harm)
    gain: Tensor | None = None  # B factors on the transplanted rain
    reward: Tensor | None = None
