"""The numbers of audit.json, and the same as metrics of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from rgsud_lib.rewards.audit.ranking import figures, first_shares, rank_correlation
from rgsud_lib.rewards.audit.state import INPUT, QUALITY, Audit


def summarise(audit: Audit) -> dict[str, Any]:
    """The numbers of audit.json, scorers sorted by rank correlation with PSNR over the sources' outputs."""
    psnr, ssim = (audit.scores[name] for name in QUALITY)
    last, only, scenes = len(audit.sources) - 1, slice(None, -1), audit.scenes
    entries = []
    for scorer in audit.scorers:
        score = audit.scores[scorer.name]
        entry = {
            "name": scorer.name, "version": scorer.version, "higher_is_better": scorer.higher_is_better,
            "seconds_per_image": float(np.median(scorer.seconds)),
            "outputs": figures(score[:, only], psnr[:, only], ssim[:, only], last, scenes),
            "with_input": figures(score, psnr, ssim, last, scenes),
        }  # fmt: skip
        idle = score.argmax(1) == last + 1
        entry["with_input"] |= {
            "picks_input": int(idle.sum()),
            "picks_input_wrongly": int((idle & (psnr.argmax(1) != last + 1)).sum()),
        }
        entries.append(entry)
    correlations = [rank_correlation(audit.scores[s.name][:, only], psnr[:, only]) for s in audit.scorers]
    for entry, share in zip(entries, first_shares(np.stack(correlations), scenes), strict=True):
        entry["first_share"] = share
    entries.sort(key=lambda entry: entry["outputs"]["spearman_psnr"]["mean"], reverse=True)
    best = psnr[:, only].mean(0).argmax()
    return {
        "images": len(audit.pairs), "scenes": len(set(scenes)),
        "sources": [
            {"name": name, "location": location, "psnr_rgb": float(psnr[:, column].mean()),
             "ssim_rgb": float(ssim[:, column].mean()), "best_on": int((psnr.argmax(1) == column).sum())}
            for column, (name, location) in enumerate([*((s.name, s.location) for s in audit.sources), (INPUT, "")])
        ],
        "baselines": {
            "last_source": audit.sources[last].name, "last_source_psnr_rgb": float(psnr[:, last].mean()),
            "best_source": audit.sources[best].name, "best_source_psnr_rgb": float(psnr[:, best].mean()),
            "blind_psnr_rgb": float(psnr[:, only].mean()), "oracle_psnr_rgb": float(psnr[:, only].max(1).mean()),
        },
        "scorers": entries,
        "warnings": audit.warnings,
    }  # fmt: skip


def flat_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """`audit/niqe/spearman_psnr` and so on."""
    names = ("spearman_psnr", "spearman_ssim", "gain", "regret")
    flat = {}
    for entry in summary["scorers"]:
        prefix = f"audit/{entry['name']}"
        flat |= {f"{prefix}/{name}": entry["outputs"][name]["mean"] for name in names}
        flat |= {f"{prefix}/with_input/{name}": entry["with_input"][name]["mean"] for name in names}
        flat[f"{prefix}/seconds_per_image"] = entry["seconds_per_image"]
    return flat
