"""The audit in words: which scorer to use, how sure that is, and what speaks against it."""

from __future__ import annotations

from typing import Any

from rgsud_lib.evaluation.verdict import FEW_IMAGES, TIE_DB

FEW_SOURCES = 4
CHANCE = 0.025  # a scorer that is first in no more of the resamples is out of the question


def describe(summary: dict[str, Any]) -> dict[str, Any]:
    """The verdict {"title", "text"}, and all warnings: those of the reading, then ours."""
    return {"verdict": _verdict(summary), "warnings": [*summary["warnings"], *_warnings(summary)]}


def _verdict(summary: dict[str, Any]) -> dict[str, str]:
    first, base = summary["scorers"][0], summary["baselines"]
    name, agreement, gain = first["name"], first["outputs"]["spearman_psnr"], first["outputs"]["gain"]
    text = (
        f"Over {count_images(summary)}, {name} orders an image's outputs as PSNR does with a rank correlation of "
        f"{agreement['mean']:.2f} (95 % interval {agreement['low']:.2f} to {agreement['high']:.2f}; 1 is the same "
        f"order, 0 is chance). Picking by it gives {first['outputs']['picked_psnr_rgb']:.2f} dB: {gain['mean']:+.2f} "
        f"dB ({gain['low']:+.2f} to {gain['high']:+.2f}) against always taking {base['last_source']}, "
        f"{first['outputs']['over_blind']['mean']:+.2f} dB against a blind choice, "
        f"{first['outputs']['regret']['mean']:.2f} dB short of perfect picks. {_sureness(summary)}"
    )
    rivals = " or ".join(entry["name"] for entry in contenders(summary)[1:])
    if agreement["low"] <= 0:
        title = "None of these scorers can be trusted on these images"
        text += " Its agreement cannot be told from chance: use none of them, or audit more images."
    elif loses(first):
        title = f"{name} orders outputs best, but its picks lose {-gain['mean']:.1f} dB"
        text += " So it must not choose freely between outputs like these; the report's worst picks show what fools it."
    elif rivals:
        title = f"Use {name}, but {rivals} may be as good"
    elif len(summary["scorers"]) == 1:
        title = f"{name} ranks these images' outputs better than chance"
    else:
        title = f"Use {name} as the reward on these images"
    return {"title": title, "text": text}


def count_images(summary: dict[str, Any]) -> str:
    """ "50 images", or "50 images of 41 scenes" where some share a clean image."""
    images, scenes = summary["images"], summary["scenes"]
    return f"{images} images" + (f" of {scenes} scenes" if scenes < images else "")


def _sureness(summary: dict[str, Any]) -> str:
    first, *others = summary["scorers"]
    if not others:
        return "No other scorer was audited."
    shares = "".join(f", {e['name']} in {100 * e['first_share']:.0f} %" for e in contenders(summary)[1:])
    sure = "" if shares else ": other images like these would hardly change that"
    return f"It comes out first in {100 * first['first_share']:.0f} % of resamples{shares}{sure}."


def loses(entry: dict[str, Any]) -> bool:
    """Whether picking by the scorer is surely worse than always taking the last source, by more than a tie."""
    gain = entry["outputs"]["gain"]
    return gain["mean"] < -TIE_DB and gain["high"] < 0


def contenders(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The first scorer, and the others that these images do not rule out as the best."""
    first, *others = summary["scorers"]
    return [first, *(entry for entry in others if entry["first_share"] > CHANCE)]


def _warnings(summary: dict[str, Any]) -> list[str]:
    first, base, found = summary["scorers"][0], summary["baselines"], []
    if summary["scenes"] < FEW_IMAGES:
        found.append(f"Only {count_images(summary)}: neither the means nor their intervals say much.")
    if (count := len(summary["sources"]) - 1) < FEW_SOURCES:
        found.append(f"Only {count} sources: a rank correlation over so few outputs is coarse; add checkpoints.")
    if first["outputs"]["gain"]["mean"] <= 0 and not loses(first):
        found.append(f"Picking by {first['name']} is no better than always taking the last source.")
    lost = base["best_source_psnr_rgb"] - first["outputs"]["picked_psnr_rgb"]
    if lost > TIE_DB and base["best_source"] != base["last_source"]:
        found.append(f"Always taking {base['best_source']} would give {lost:.2f} dB more than picking by it.")
    safest = min(summary["scorers"], key=lambda entry: entry["outputs"]["regret"]["mean"])
    if safest is not first:
        found.append(f"{safest['name']} has the smallest regret: {safest['outputs']['regret']['mean']:.2f} dB.")
    by_ssim = max(summary["scorers"], key=lambda entry: entry["outputs"]["spearman_ssim"]["mean"])
    if by_ssim is not first:
        found.append(f"By SSIM instead of PSNR, {by_ssim['name']} would be first.")
    for entry in summary["scorers"]:
        if wrongly := entry["with_input"]["picks_input_wrongly"]:
            many = f"{wrongly} of {summary['images']} images"
            found.append(
                f"{entry['name']} likes doing nothing: it prefers the rainy input to a better output on {many}."
            )
        if constant := entry["outputs"]["constant_images"]:
            found.append(
                f"{entry['name']} gives all outputs one score on {constant} images (counted as correlation 0)."
            )
    return found
