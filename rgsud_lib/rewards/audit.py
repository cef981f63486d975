"""Audit of rewards: which scorer ranks several models' outputs of an image as the clean image does? (ours)

Outputs of every source are scored without the clean image, and judged with it (PSNR, SSIM). Everything computed
is kept in WORKDIR/audit-cache, so a killed audit goes on and a second one with one more scorer is quick.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

from rgsud_lib import tracking
from rgsud_lib.config import Config, digest_of
from rgsud_lib.data.decode import decode
from rgsud_lib.data.images import to_tensor, to_uint8
from rgsud_lib.data.manifest import CRITIC, ImageRecord, Images, Pair, content_id, image_path, read_image
from rgsud_lib.data.prepare import _pair_up
from rgsud_lib.data.rain import draw_rain
from rgsud_lib.data.reading import read_sources
from rgsud_lib.data.sources import Sources, _images, _match, _published
from rgsud_lib.errors import ConfigError, DataError, TrainingError
from rgsud_lib.evaluation.metrics import METRICS
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.inference import derain_image, find_model, load_derainer, weights_digest
from rgsud_lib.rewards import build_scorer
from rgsud_lib.rewards.cache import CachedScorer, ScoreCache
from rgsud_lib.scorer_names import parse_scorer
from rgsud_lib.storage import SourceFile
from rgsud_lib.task import exclusive
from rgsud_lib.training.runtime import choose_device

INPUT = "input"  # doing nothing, the candidate beside the sources
QUALITY = ("psnr_rgb", "ssim_rgb")
RAIN_SEED = 20_260_102  # neither the demo's nor the warm start's
DRAWN = 50  # at most, where pairs are made from clean images
RESAMPLES, BOOTSTRAP_SEED = 4000, 0


@dataclass(frozen=True)
class Source:
    """Where one candidate of every image comes from; `outputs` holds its files by ids of rainy images."""

    name: str
    location: str
    outputs: dict[str, SourceFile]


@dataclass
class Audit:
    """What is audited and what was measured: each array of `scores` is pairs x candidates, the input last."""

    config: Config
    cache: Path
    device: str
    pairs: list[Pair] = field(default_factory=list)
    clean: list[ImageRecord] = field(default_factory=list)  # what scorers are fitted on
    sources: list[Source] = field(default_factory=list)
    scorers: list[CachedScorer] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def scenes(self) -> np.ndarray:
        """A number for the scene of each pair: pairs that share a clean image (other rain) are not independent."""
        return np.unique([pair.clean for pair in self.pairs], return_inverse=True)[1]

    @property
    def candidates(self) -> list[str]:
        return [*(source.name for source in self.sources), INPUT]

    def output(self, pair: Pair, candidate: int) -> np.ndarray:
        """A candidate of the pair's rainy image, uint8 H x W x 3."""
        if candidate == len(self.sources):
            return read_image(self.cache, pair.rainy)
        return decode(self.sources[candidate].outputs[pair.rainy].read(), self.config.data.max_pixels)


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
    from rgsud_lib.rewards.audit_report import describe

    names = list(dict.fromkeys(scorers))
    _check_request(pairs, clean, candidates, names)
    files = list(dict.fromkeys(file for path in checkpoints for file in find_checkpoints(Path(path))))
    if len(files) + len(candidates) < 2:
        raise _too_few(len(files) + len(candidates))
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


def read_pairs(audit: Audit, pairs: str | None, clean: str | None) -> None:
    """Read, check and store the pairs, or draw rain on at most 50 of the clean images, evenly spread.

    Raises DataError: no images, names that do not match, sizes that differ, nothing usable.
    """
    warnings = audit.warnings
    matched = _match(pairs, _images(pairs, "paired", warnings)) if pairs else []
    clean_files = _images(clean, "clean", warnings) if clean else []
    sources = Sources([], clean_files, matched, warnings)
    records, broken = read_sources(audit.config.data, sources, audit.cache)
    warnings += [f"not used: {item.role} {item.name}: {item.reason}" for item in broken]
    if pairs:
        audit.pairs = _pair_up(sources, records, broken)
    else:
        audit.pairs = [_draw_pair(audit.cache, record) for record in _spread(records["clean"], DRAWN)]
        warnings.append(
            f"The rain is drawn, on {len(audit.pairs)} of {len(clean_files)} clean images: a scorer may do better or "
            "worse on real rain, and a warm start was trained on rain like it."
        )
    if not audit.pairs:
        raise DataError(f"none of the {len(clean_files)} images of {clean} is usable ({broken[0].reason})")
    own = {pair.clean for pair in audit.pairs}
    audit.clean = records["clean"] or [record for record in records["paired_clean"] if record.id in own]
    if shared := len(own & {record.id for record in audit.clean}):
        warnings.append(
            f"Scorers with a model of clean images (such as niqe) were fitted on {shared} of the {len(own)} clean "
            "images they are audited on, which may flatter them; give clean photographs of other scenes"
            f"{' with --clean' if pairs else ' and pairs with --pairs'}."
        )


def find_checkpoints(path: Path) -> list[Path]:
    """The model files of a workdir's finished stages in the order they were made, else the one `find_model` finds."""
    stages = sorted(path.glob("stages/*/bundle.json"), key=lambda marker: marker.stat().st_mtime)
    names = ("warm_start.safetensors", "derainer.safetensors")
    found = [file for marker in stages for name in names if (file := marker.with_name(name)).is_file()]
    return found or [find_model(path)]


def find_critic(workdirs: Sequence[Path]) -> Path | None:
    """The newest critic that `prepare` left in one of these workdirs."""
    found = (path for workdir in workdirs for path in workdir.glob(f"stages/*/{CRITIC}"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def read_candidates(audit: Audit, folders: Sequence[str]) -> None:
    """Add folders of outputs as sources. Raises DataError: outputs missing, undecodable, of another size."""
    for folder in folders:
        files: dict[str, SourceFile] = {}
        for file in _images(folder, "candidates", audit.warnings):
            stem = PurePosixPath(file.name).with_suffix("")
            files |= {_published(stem): file, str(stem): file}
        missing = [pair.name for pair in audit.pairs if pair.name not in files]
        if missing:
            what = f"candidates folder {folder} lacks {len(missing)} of {len(audit.pairs)} images, such as {missing[0]}"
            raise DataError(f"{what}; every pair needs an output of the same name")
        outputs = {pair.rainy: files[pair.name] for pair in audit.pairs}
        audit.sources.append(Source(_unique(Path(folder).name, audit.sources), folder, outputs))
        for pair in audit.pairs:
            found = audit.output(pair, len(audit.sources) - 1).shape
            expected = read_image(audit.cache, pair.rainy).shape
            if found != expected:
                sizes = f"{found[1]}x{found[0]} pixels, its pair {expected[1]}x{expected[0]}"
                raise DataError(f"{files[pair.name].address} has {sizes}; outputs must show the same pixels")


def derain_pairs(audit: Audit, files: Sequence[Path]) -> None:
    """Add models as sources, before the folders; outputs lie under digests of weights, tiling and rainy image."""
    config, found, seen = audit.config.evaluation, [], {}
    (audit.cache / "outputs").mkdir(exist_ok=True)
    with tqdm(total=len(files) * len(audit.pairs), desc="derain", unit="image", disable=None) as progress:
        for file in files:
            model = load_derainer(file, audit.device)
            weights = weights_digest(model.state_dict())
            if weights in seen:
                audit.warnings.append(f"{file} holds the same weights as {seen[weights]} and is left out.")
                continue
            seen[weights] = file
            outputs: dict[str, SourceFile] = {}
            for pair in audit.pairs:
                key = digest_of([weights, config.tile, config.overlap, pair.rainy])
                path = audit.cache / "outputs" / f"{key}.png"
                if not path.exists():
                    _save(path, derain_image(model, read_image(audit.cache, pair.rainy), config.tile, config.overlap))
                outputs[pair.rainy] = SourceFile(path.name, str(path), path.stat().st_size)
                progress.update()
            folder = file.resolve().parent.name
            name = {"derainer": folder, "warm_start": f"{folder}/warm_start"}.get(file.stem, file.stem)
            found.append(Source(_unique(name, [*audit.sources, *found]), str(file), outputs))
    audit.sources[:0] = found
    if len(audit.sources) < 2:
        raise _too_few(len(audit.sources))


def score_pairs(audit: Audit, store: ScoreCache) -> None:
    """Fill `audit.scores`. Raises TrainingError for a scorer that gives NaN, or one value for all there is."""
    judges = [CachedScorer(_Reference(name), store) for name in QUALITY]
    count = len(audit.candidates)
    for scorer in (*judges, *audit.scorers):
        audit.scores[scorer.name] = np.empty((len(audit.pairs), count))
    total = len(audit.pairs) * count * (len(judges) + len(audit.scorers))
    with tqdm(total=total, desc="score", unit="score", disable=None) as progress:
        for row, pair in enumerate(audit.pairs):
            rainy, clean = (to_tensor(read_image(audit.cache, id)) for id in (pair.rainy, pair.clean))
            for column in range(count):
                output = to_tensor(audit.output(pair, column))
                for scorer, other in [(judge, clean) for judge in judges] + [(s, rainy) for s in audit.scorers]:
                    audit.scores[scorer.name][row, column] = _score(audit, scorer, output, other, row, column)
                    progress.update()
    for scorer in audit.scorers:
        values = audit.scores[scorer.name]
        if (values == values[:, :1]).all():
            raise TrainingError(
                f"scorer {scorer.name!r} gives all {count} candidates of each image one score, such as "
                f"{values[0, 0]:g} for image {audit.pairs[0].name}; it cannot choose anything: leave it out"
            )


def _score(audit: Audit, scorer: CachedScorer, output: Tensor, other: Tensor, row: int, column: int) -> float:
    what = f"image {audit.pairs[row].name}, candidate {audit.candidates[column]}"
    try:
        score = scorer(output, other).item()
    except DataError as error:
        raise DataError(f"scorer {scorer.name!r} cannot score {what}: {error}") from None
    if not math.isfinite(score):
        raise TrainingError(f"scorer {scorer.name!r} gave {score} for {what}; expected a finite score: leave it out")
    return score


class _Reference:
    """A full-reference metric as a scorer whose second argument is the clean image, so that it is cached like one."""

    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name, self.version = name, digest_of({"name": name, "revision": 1})

    def __call__(self, output: Tensor, rainy: Tensor) -> Tensor:
        return METRICS[self.name](output, rainy).float()


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
    for entry, share in zip(entries, first_shares(audit, psnr), strict=True):
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


def first_shares(audit: Audit, psnr: np.ndarray) -> list[float]:
    """In which share of the bootstrap's resamples each scorer has the highest rank correlation."""
    rho = np.stack([rank_correlation(audit.scores[scorer.name][:, :-1], psnr[:, :-1]) for scorer in audit.scorers])
    first = (rho @ _resampled(audit.scenes).T).argmax(0)
    return [float((first == index).mean()) for index in range(len(rho))]


def _resampled(scenes: np.ndarray) -> np.ndarray:
    """Weights of the images in each resample of scenes, RESAMPLES x images; always the same ones, so figures compare.

    `scenes` numbers each image's scene from 0; a scene is drawn with all its images (a cluster bootstrap).
    """
    count = scenes.max() + 1
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weights = drawn[:, scenes]
    return weights / weights.sum(1, keepdims=True)


def flat_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """`audit/niqe/spearman_psnr` and so on, under names that MLflow takes."""
    names = ("spearman_psnr", "spearman_ssim", "gain", "regret")
    flat = {}
    for entry in summary["scorers"]:
        prefix = "audit/" + re.sub(r"[^\w.-]", "_", entry["name"])
        flat |= {f"{prefix}/{name}": entry["outputs"][name]["mean"] for name in names}
        flat |= {f"{prefix}/with_input/{name}": entry["with_input"][name]["mean"] for name in names}
        flat[f"{prefix}/seconds_per_image"] = entry["seconds_per_image"]
    return flat


def _write(audit: Audit, summary: dict[str, Any], out: Path, run: tracking.StageRun) -> None:
    from rgsud_lib.rewards.audit_report import write_report

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


def _check_request(pairs: str | None, clean: str | None, candidates: Sequence[str], scorers: Sequence[str]) -> None:
    if not pairs and not clean:
        raise ConfigError("give --pairs DIR (with rain/ and clean/), or --clean DIR on whose images rain is drawn")
    if candidates and not pairs:
        raise ConfigError("--candidates are outputs of rainy images that are yours: give these with --pairs DIR")
    if not scorers:
        raise ConfigError("--scorers names none; give some, for example --scorers rain_layer,niqe")
    for name in scorers:
        parse_scorer(name)


def _too_few(count: int) -> ConfigError:
    fix = "give more with --checkpoints (a workdir gives all its stages' models) or --candidates"
    return ConfigError(f"{count} different sources of outputs, a ranking needs at least 2; {fix}")


def _unique(name: str, others: Sequence[Source]) -> str:
    taken = {INPUT, *(source.name for source in others)}
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


def _spread(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    chosen = np.unique(np.linspace(0, len(records) - 1, min(len(records), count)).round().astype(int))
    return [records[index] for index in chosen]


def _draw_pair(folder: Path, record: ImageRecord) -> Pair:
    """The same rain on the same image each time, wherever it stands in its folder."""
    rainy = to_uint8(draw_rain(to_tensor(read_image(folder, record.id)), (RAIN_SEED, int(record.id, 16))))[0]
    id = content_id(rainy)
    _save(image_path(folder, id), rainy)
    return Pair(rainy=id, clean=record.id, name=str(PurePosixPath(record.name).with_suffix("")))


def _save(path: Path, image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    write_bytes(path, buffer.getvalue())
