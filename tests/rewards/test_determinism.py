"""The same image gets the same score to the last bit, in another process too."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import torch

from rgsud_lib.config import load_config
from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.critic import Critic

NAMES = ("critic", "decorrelation", "rain_layer", "niqe", "piqe", "critic+2*decorrelation+piqe")
AGAIN = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_determinism import scores
print(json.dumps(scores(Path(sys.argv[2]))))
"""


def scores(critic) -> dict[str, list[str]]:
    """Version and exact score of two outputs of one image by every embedded scorer."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(5)
    clean = [np.kron(rng.integers(0, 200, (16, 20, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(4)]
    clean = [(image + rng.integers(0, 40, image.shape)).astype(np.uint8) for image in clean]
    rainy, first, second = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in clean[:3])
    outputs = torch.cat([0.9 * rainy + 0.1 * first, 0.8 * rainy + 0.2 * second])
    found = {}
    for name in NAMES:
        scorer = build_scorer(name, load_config("cpu"), clean, critic)
        found[name] = [scorer.version, *(float(s).hex() for s in scorer(outputs, torch.cat([rainy, rainy])))]
    return found


def test_two_processes_agree_to_the_last_bit(tmp_path):
    critic = tmp_path / "critic.safetensors"
    Critic(torch.tensor([-2.9, 0.4, -1.0]), load_config("cpu").critic).save(critic)
    here = scores(critic)
    folder = __file__.rpartition("/")[0]
    other = subprocess.run(
        [sys.executable, "-c", AGAIN, folder, str(critic)], capture_output=True, text=True, check=True
    )
    assert json.loads(other.stdout) == here
    assert len({tuple(values) for values in here.values()}) == len(NAMES)
