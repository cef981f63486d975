"""Audit of rewards: which scorer ranks several models' outputs of an image as the clean image does? (ours)

Outputs of every source are scored without the clean image, and judged with it (PSNR, SSIM). Everything computed
is kept in WORKDIR/audit-cache, so a killed audit goes on and a second one with one more scorer is quick.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rgsud_lib import tracking
from rgsud_lib.config import Config, digest_of
from rgsud_lib.data.manifest import Images, read_image
from rgsud_lib.errors import ConfigError
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.audit.pairs import read_pairs
from rgsud_lib.rewards.audit.report import write_report
from rgsud_lib.rewards.audit.scoring import score_pairs
from rgsud_lib.rewards.audit.sources import derain_pairs, find_checkpoints, find_critic, read_candidates, too_few
from rgsud_lib.rewards.audit.state import Audit
from rgsud_lib.rewards.audit.summary import flat_metrics, summarise
from rgsud_lib.rewards.audit.verdict import describe
from rgsud_lib.rewards.cache import CachedScorer, ScoreCache
from rgsud_lib.scorer_names import parse_scorer
from rgsud_lib.task import exclusive
from rgsud_lib.training.runtime import choose_device


def audit_rewards(
    config: Config, pairs: str | None, clean: str | None, checkpoints: Sequence[Path], candidates: Sequence[str],
    scorers: Sequence[str], workdir: Path, out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Write audit.json, per_image.csv and report.html into `out`, log them as a run of `workdir`; returns audit.json.

    `pairs`: a folder with rain/ and clean/; None: rain is drawn on the images of `clean`. Scorers that have a model
    of clean images fit it on `clean`, or on the pairs' own. `checkpoints`: as `load_derainer` takes them, a workdir
    gives all its stages' models. `candidates`: folders of outputs under the pairs' names. Raises ConfigError: unknown
    scorer, fewer than two sources; DataError: unusable images; TrainingError: a scorer that is NaN or constant.
    """
    names = list(dict.fromkeys(scorers))
    _check_request(pairs, clean, candidates, names)
    files = list(dict.fromkeys(file for path in checkpoints for file in find_checkpoints(Path(path))))
    if len(files) + len(candidates) < 2:
        raise too_few(len(files) + len(candidates))
    audit = Audit(config, Path(workdir) / "audit-cache", choose_device(config.training))
    for folder in (audit.cache, out):
        folder.mkdir(parents=True, exist_ok=True)
    key = digest_of({"inputs": [pairs, clean, *map(str, files), *candidates], "scorers": names})
    with (
        exclusive(audit.cache / ".lock"),
        tracking.stage_run("audit", config, Path(workdir), key) as run,
        ScoreCache(audit.cache / "scores.sqlite") as store,
    ):
        read_pairs(audit, pairs, clean)
        run.log_input("pairs", digest_of([pair.model_dump() for pair in audit.pairs]), pairs or str(clean), "audit")
        images = Images(partial(read_image, audit.cache), audit.clean)
        critic = find_critic([Path(workdir), *map(Path, checkpoints)])
        built = (build_scorer(name, config, images, critic, audit.device) for name in names)
        audit.scorers = list({scorer.name: CachedScorer(scorer, store) for scorer in built}.values())
        read_candidates(audit, candidates)
        derain_pairs(audit, files)
        score_pairs(audit, store)
        summary = summarise(audit)
        summary |= describe(summary)
        _write(audit, summary, out, run)
    return summary


def _check_request(pairs: str | None, clean: str | None, candidates: Sequence[str], scorers: Sequence[str]) -> None:
    if not pairs and not clean:
        raise ConfigError("give --pairs DIR (with rain/ and clean/), or --clean DIR on whose images rain is drawn")
    if candidates and not pairs:
        raise ConfigError("--candidates are outputs of rainy images that are yours: give these with --pairs DIR")
    if not scorers:
        raise ConfigError("--scorers names none; give some, for example --scorers rain_layer,niqe")
    for name in scorers:
        parse_scorer(name)


def _write(audit: Audit, summary: dict[str, Any], out: Path, run: tracking.StageRun) -> None:
    write_json(out / "audit.json", summary)
    write_bytes(out / "per_image.csv", _csv(audit))
    write_report(audit, summary, out)
    for name in ("audit.json", "per_image.csv", "report.html"):
        run.log_artifact(out / name)
    run.log_metrics(flat_metrics(summary))


def _csv(audit: Audit) -> bytes:
    """A line an image and candidate; scores as the audit compares them, higher is better."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "candidate", *audit.scores])
    for row, pair in enumerate(audit.pairs):
        for column, candidate in enumerate(audit.candidates):
            writer.writerow([pair.name, candidate, *(float(values[row, column]) for values in audit.scores.values())])
    return text.getvalue().encode()
