"""Is there enough new or different rain to train again? Compares a rainy prefix with what the last model learnt from.

It only answers. What a training keeps of the last model (split, weights, rewards) `config.retraining` says and
`stages` does.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rgsud_lib import tracking
from rgsud_lib.config import Config, NewDataConfig, digest_of
from rgsud_lib.data.novelty import Novelty, find_novelty
from rgsud_lib.data.sources import list_images
from rgsud_lib.retraining.last_model import LastModel, last_models

STAGE = "new_data_check"
DAY = 86400.0
Answer = Literal["train", "skip"]
logger = logging.getLogger("rgsud")


@dataclass(frozen=True)
class Decision:
    """The answer with its reasons. `last` and what was found against it are None where there is no model yet."""

    answer: Answer
    reasons: tuple[str, ...]
    listed: int
    last: LastModel | None = None
    age_days: float | None = None
    novelty: Novelty | None = None
    warnings: tuple[str, ...] = ()

    def numbers(self) -> dict[str, float]:
        """For MLflow: what is known, by name."""
        found, numbers = self.novelty, {"listed_images": self.listed, "model_age_days": self.age_days}
        if found:
            numbers |= {"new_images": len(found.new), "unreadable_images": len(found.unreadable)}
            numbers |= {"repeated_images": found.repeats, "gone_images": found.gone}
        if found and found.drift:
            numbers |= {"drift_mmd": found.drift.mmd, "drift_p_value": found.drift.p_value}
            numbers |= {"rain_intensity_distance": found.drift.distance}
        return {f"new_data/{name}": float(value) for name, value in numbers.items() if value is not None}


def check_new_data(config: Config, rainy: str, workdir: Path | str, report: Path) -> Decision:
    """Decide whether the images at `rainy` (a folder or `s3://` prefix) are worth a training; write the HTML `report`.

    They are compared with the dataset of the registry's champion, else of the workdir's newest export. Unreadable
    images are counted and named. Raises DataError: the prefix cannot be listed or has no images; BundleError: the
    last model's bundles are altered or in another workdir; RegistryError: the registry fails.
    """
    from rgsud_lib.retraining.new_data_report import write_report

    key = digest_of({"stage": STAGE, "rainy": rainy, "config": config.digest("data", "new_data")})
    with tracking.stage_run(STAGE, config, workdir, key) as run:
        decision = _decide(config, rainy, workdir)
        page = report.with_suffix(".html")  # KFP's path has none, and MLflow shows what it knows as a page
        page.parent.mkdir(parents=True, exist_ok=True)
        write_report(page, config.new_data, decision)
        if page != report:
            shutil.copyfile(page, report)
        if decision.last:
            run.log_input("known", decision.last.dataset.digest, str(decision.last.dataset.path), STAGE)
        run.log_metrics(decision.numbers())
        run.set_tags({"rgsud.decision": decision.answer, "rgsud.reasons": "; ".join(decision.reasons)})
        run.log_artifact(page)
    logger.info("%s: %s (%s)", STAGE, decision.answer, "; ".join(decision.reasons))
    return decision


def _decide(config: Config, rainy: str, workdir: Path | str) -> Decision:
    warnings: list[str] = []
    files = list_images(rainy, "rainy", warnings)
    models = last_models(workdir)
    if not models:
        return Decision("train", ("no model yet",), len(files), warnings=tuple(warnings))
    last = models[0]
    age = max(0.0, (time.time() - last.exported) / DAY)
    found = find_novelty(config.data, files, last.manifest(), last.dataset.path, config.new_data.sample)
    answer, reasons = weigh(config.new_data, found, age)
    if answer == "train" and (tried := _tried(found, models)):
        answer, reasons = "skip", (f"{tried} has learnt from all of the new images already and is not the champion",)
    if found.unreadable:
        first = found.unreadable[0]
        warnings.append(f"unreadable images: {len(found.unreadable)}, such as {first.name} ({first.reason})")
    if not config.retraining.keep_split:
        warnings.append(
            "retraining.keep_split is off: the new model may be compared with the last one on images that the last "
            "one was trained on"
        )
    return Decision(answer, reasons, len(files), last, age, found, tuple(warnings))


def weigh(config: NewDataConfig, found: Novelty, age_days: float) -> tuple[Answer, tuple[str, ...]]:
    """The answer and its reasons: all that speak for a training, or else all that speak against one.

    Without new images there is nothing to gain at any age: the same data and settings give the same model.
    """
    count = len(found.new)
    if not count:
        return "skip", ("no new images",)
    images, enough = f"{count} new image{'s' if count > 1 else ''}", config.min_new_images
    p_value = found.drift.p_value if found.drift else None
    drifted = p_value is not None and p_value <= config.drift_p_value
    tested = "too few images to test for drift" if p_value is None else f"drift p-value {p_value:.3f}"
    old = f"the last model is {age_days:.0f} days old"
    rules = (
        (count >= enough, f"{images}, at least {enough} are wanted", f"{images}, fewer than {enough}"),
        (drifted, f"the new images differ from those trained on: {tested}", tested),
        (age_days > config.max_age_days, f"{old}, more than {config.max_age_days:g}, and there are new images", old),
    )
    yes = tuple(reason for holds, reason, _ in rules if holds)
    return ("train", yes) if yes else ("skip", tuple(reason for _, _, reason in rules))


def _tried(found: Novelty, models: list[LastModel]) -> str | None:
    """The name of a later model than the champion that has learnt from all new images already."""
    new = {record.id for record in found.new}
    later = (model for model in models[1:] if model.exported > models[0].exported)
    return next((model.name for model in later if new <= {image.id for image in model.manifest().images}), None)
