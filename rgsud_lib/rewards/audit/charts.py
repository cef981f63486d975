"""The charts of the audit's page: a scorer's agreement with PSNR, and what each place in its order is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup, escape

from rgsud_lib.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Frame, svg_figure
from rgsud_lib.rewards.audit.state import Audit

DOTS = 200  # images drawn in a scatter, at most


def interval_mark(entry: dict[str, Any]) -> Markup:
    """A small axis from -1 to 1: rank correlation with its interval, and (hollow) with the input as a candidate."""
    agreement, whole = entry["outputs"]["spearman_psnr"], entry["with_input"]["spearman_psnr"]
    low, mean, high, hollow = (80 + 74 * v for v in (*(agreement[k] for k in ("low", "mean", "high")), whole["mean"]))
    caption = f"{entry['name']}: {agreement['mean']:.2f}, 95 % {agreement['low']:.2f} to {agreement['high']:.2f}"
    return Markup(
        f'<svg class="interval" viewBox="0 0 160 20" width="160" height="20" role="img" aria-label="{escape(caption)}">'
        '<line class="grid" x1="6" x2="154" y1="10" y2="10"/><line class="axis" x1="80" x2="80" y1="3" y2="17"/>'
        f'<line class="line s0" x1="{low:.1f}" x2="{max(high, low + 1):.1f}" y1="10" y2="10"/>'
        f'<circle class="hollow" cx="{hollow:.1f}" cy="10" r="4"/>'
        f'<circle class="dot s0" cx="{mean:.1f}" cy="10" r="4"/>'
        "</svg>"
    )


def rank_chart(audit: Audit, entry: dict[str, Any]) -> Markup:
    """PSNR against the image's mean over its outputs, by the scorer's rank (1: its pick); a dot an output."""
    psnr, score = audit.scores["psnr_rgb"][:, :-1], audit.scores[entry["name"]][:, :-1]
    order = np.argsort(-score, axis=1, kind="stable")
    gains = np.take_along_axis(psnr - psnr.mean(1, keepdims=True), order, 1)
    ranks = np.arange(1, gains.shape[1] + 1)
    rows = np.unique(np.linspace(0, len(gains) - 1, min(len(gains), DOTS)).round().astype(int))
    frame = Frame(0.5, gains.shape[1] + 0.5, gains[rows].min(), gains[rows].max())
    parts = [frame.grid(steps=False)]
    parts += [
        f'<text class="tick" x="{frame.x(rank):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{rank}</text>'
        for rank in ranks[:: max(1, len(ranks) // 12)]
    ]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{frame.y(0):.1f}" y2="{frame.y(0):.1f}"/>')
    for place, row in enumerate(rows):
        shift = 0.5 * (place / max(1, len(rows) - 1) - 0.5)  # beside each other, always at the same place
        for rank, candidate in zip(ranks, order[row], strict=True):
            title = f"{audit.pairs[row].name}, {audit.candidates[candidate]}: {gains[row, rank - 1]:+.2f} dB"
            parts.append(
                f'<circle class="cloud" cx="{frame.x(rank + shift):.1f}" cy="{frame.y(gains[row, rank - 1]):.1f}" '
                f'r="2"><title>{escape(title)}</title></circle>'
            )
    path = " ".join(f"{frame.x(rank):.1f},{frame.y(gains[:, rank - 1].mean()):.1f}" for rank in ranks)
    parts.append(f'<polyline class="line s1" points="{path}"/>')
    agreement = entry["outputs"]["spearman_psnr"]["mean"]
    return svg_figure(f"{entry['name']}, rank correlation {agreement:.2f}", parts)
