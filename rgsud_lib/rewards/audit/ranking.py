"""What a ranking is worth: rank correlation with quality, PSNR of the picks, and bootstrap intervals over scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

RESAMPLES, BOOTSTRAP_SEED = 4000, 0


def figures(score: np.ndarray, psnr: np.ndarray, ssim: np.ndarray, last: int, scenes: np.ndarray) -> dict[str, Any]:
    """What a scorer is worth on images x candidates: agreement, and PSNR of its picks (the first of equal scores).

    `gain` is over always taking candidate `last`, `over_blind` over a blind choice (the image's mean), `regret`
    against the best pick; all in dB.
    """
    picked = np.take_along_axis(psnr, score.argmax(1)[:, None], 1)[:, 0]
    return {
        "spearman_psnr": interval(rank_correlation(score, psnr), scenes),
        "spearman_ssim": interval(rank_correlation(score, ssim), scenes),
        "picked_psnr_rgb": float(picked.mean()),
        "gain": interval(picked - psnr[:, last], scenes),
        "over_blind": interval(picked - psnr.mean(1), scenes),
        "regret": interval(psnr.max(1) - picked, scenes),
        "constant_images": int((score == score[:, :1]).all(1).sum()),
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of two N x M arrays (ties share their mean rank); 0 for constant rows."""
    ranks = [rankdata(values, axis=1) for values in (first, second)]
    first, second = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.divide((first * second).sum(1), scale, out=np.zeros(len(scale)), where=scale > 0)


def interval(values: np.ndarray, scenes: np.ndarray) -> dict[str, float]:
    """Mean with its 95 % percentile bootstrap interval over scenes; it speaks of other scenes, not other sources."""
    low, high = np.quantile(_resampled(scenes) @ values, (0.025, 0.975))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def first_shares(correlations: np.ndarray, scenes: np.ndarray) -> list[float]:
    """In which share of the resamples each scorer is first; `correlations`: its rank correlations, scorers x images."""
    first = (correlations @ _resampled(scenes).T).argmax(0)
    return [float((first == index).mean()) for index in range(len(correlations))]


def _resampled(scenes: np.ndarray) -> np.ndarray:
    """Weights of the images in each resample of scenes, RESAMPLES x images; always the same ones, so figures compare.

    `scenes` numbers each image's scene from 0; a scene is drawn with all its images (a cluster bootstrap).
    """
    count = scenes.max() + 1
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weights = drawn[:, scenes]
    return weights / weights.sum(1, keepdims=True)
