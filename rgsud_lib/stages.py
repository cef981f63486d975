"""The five stages, as the paper's steps: prepare, recycle, reinforce, evaluate, export.

`rgsud run` on a laptop, a KFP task and a test all call these. A result is WORKDIR/stages/<stage>-<key>/, where
the key digests all that changes it: a finished one is returned at once, an unfinished one is resumed. The workdir
and every input bundle is a folder or an `s3://` address (remote.py); so is then what comes back.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgsud_lib import tracking
from rgsud_lib.bundle import is_sealed, open_bundle, seal
from rgsud_lib.config import Config, digest_of
from rgsud_lib.cost.meter import Meter
from rgsud_lib.cost.spent import stage_metrics
from rgsud_lib.doctor import check_node
from rgsud_lib.errors import TrainingError
from rgsud_lib.fan_out import Parts, Shard
from rgsud_lib.files import CHECKPOINT, link_tree
from rgsud_lib.storage.listing import canonical
from rgsud_lib.storage.remote import finish, is_finished, open_anywhere, pulled
from rgsud_lib.storage.s3 import is_remote
from rgsud_lib.task import exclusive
from rgsud_lib.tracking.mlflow_models import BUNDLE_DIGEST, BUNDLE_PATH

if TYPE_CHECKING:
    from rgsud_lib.retraining.last_model import LastModel

logger = logging.getLogger("rgsud")

SCORING = ("degradation", "critic", "scorers", "reward")
TRAINING = ("derainer", "method", "warm_start", "training", "retraining", *SCORING)
# Each stage's kind of bundle and the sections of the configuration that change its result.
STAGES = {
    "prepare": ("dataset", ("data", "degradation", "critic")),
    "recycle": ("recycled", TRAINING),
    "reinforce": ("reinforced", (*TRAINING, "reinforcement")),
    "evaluate": ("evaluation", (*SCORING, "evaluation")),
    "export": ("export", ("derainer", "export")),
}
ON_GPU = {"recycle", "reinforce", "evaluate", "score"}  # where a placement has GPUs: these look at their machine first
# Parts of prepare's and evaluate's work that tasks beside them do ahead (fan_out.py); gone once they are put together.
PARTS = {
    "check": ("checked", ("data",)),
    "score": ("scores", (*SCORING, "evaluation")),
}
KINDS = STAGES | PARTS
# What each stage is made from: the kinds of its input bundles, or the image sources.
INPUTS = {
    "prepare": ("sources",),
    "recycle": ("dataset",),
    "reinforce": ("dataset", "recycled"),
    "evaluate": ("dataset", "recycled", "reinforced"),
    "export": ("dataset", "reinforced", "evaluation"),
}
ROLES = ("rainy", "clean", "paired")  # of the image sources
# What a stage does: (its folder, its MLflow run) -> facts for the bundle. Heavy imports happen in there,
# so that a stage that was finished before costs nothing.
Work = Callable[[Path, tracking.StageRun], dict[str, Any]]
Place = Path | str  # a folder or an s3:// address


def prepare(config: Config, rainy: str, clean: str, paired: str | None, workdir: Place, shards: int = 1) -> Place:
    """Validate, deduplicate, split and digest the images of folders or `s3://` prefixes: a "dataset" bundle.

    `shards`: how many `check` was asked to do ahead.
    """
    from rgsud_lib.data.prepare import prepare_dataset, source_digest
    from rgsud_lib.retraining.last_model import earlier_dataset

    sources = source_digest(rainy, clean, paired)
    last = earlier_dataset(config, sources, workdir)
    inputs = _sources(sources, last)
    parts = _parts("check", config, {"sources": sources}, shards, workdir)
    places = {role: canonical(place) for role, place in zip(ROLES, (rainy, clean, paired), strict=True) if place}

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        facts = prepare_dataset(config.data, rainy, clean, paired, folder, last and last.manifest(), parts.folders())
        if config.critic.enabled:
            _train_critic(config, folder)
        run.log_artifact(folder / "report.html")
        run.log_artifact(folder / "manifest.json")
        return facts | {"sources": places}

    dataset = _stage("prepare", config, inputs, workdir, work, {"sources": ", ".join(places.values())}, parts)
    parts.remove()
    return dataset


def check(config: Config, rainy: str, clean: str, paired: str | None, shard: Shard, workdir: Place) -> None:
    """Read a shard of the images ahead of `prepare`; nothing where it is the only one, or all is done."""
    done = stage_key("prepare", config, prepare_inputs(config, shard.sources, workdir))
    if shard.count == 1 or is_finished(place_of("prepare", done, workdir)):
        return

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        from rgsud_lib.data.reading import read_part
        from rgsud_lib.data.sources import find_sources

        return read_part(config.data, find_sources(rainy, clean, paired), shard, folder)

    _stage("check", config, _part({"sources": shard.sources}, shard), workdir, work)


def recycle(config: Config, dataset: Place, workdir: Place, reinforced: Place | None = None) -> Place:
    """Stage 1, reward recycling: an optional warm start, then unpaired training that fills the reward pool.

    `reinforced`: stage 2 of the model to follow; where `config.retraining` wants one, the last model's by default.
    """
    from rgsud_lib.retraining.last_model import model_to_follow

    reinforced = reinforced or model_to_follow(config, dataset, workdir)
    bundles = {"dataset": dataset} | ({"reinforced": reinforced} if reinforced else {})

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        from rgsud_lib.training.run import train_recycle

        return train_recycle(config, pulled(dataset), folder, run, reinforced and pulled(reinforced))

    return _train("recycle", config, bundles, workdir, work)


def reinforce(config: Config, dataset: Place, recycled: Place, workdir: Place) -> Place:
    """Stage 2, self-reinforcement: pooled rewards replace the degradation U-Net's output and pull the derainer."""

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        from rgsud_lib.training.run import train_reinforce

        return train_reinforce(config, pulled(dataset), pulled(recycled), folder, run)

    return _train("reinforce", config, {"dataset": dataset, "recycled": recycled}, workdir, work)


def evaluate(
    config: Config, dataset: Place, recycled: Place, reinforced: Place, workdir: Place, shards: int = 1
) -> Place:
    """Score input, warm start, stage 1 and stage 2 on the pairs and the held-back rainy images; write the report.

    `shards`: how many `score` was asked to do ahead.
    """
    bundles = {"dataset": dataset, "recycled": recycled, "reinforced": reinforced}
    inputs = _digests(**bundles)
    parts = _parts("score", config, inputs, shards, workdir)

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        from rgsud_lib.evaluation.evaluate import evaluate_models

        facts = evaluate_models(config, *map(pulled, (dataset, recycled, reinforced)), folder, parts.folders())
        for name in ("report.html", "strip.png", "metrics.json", "per_image.csv"):
            run.log_artifact(folder / name)
        run.log_metrics(facts["metrics"])
        return facts

    evaluation = _stage("evaluate", config, inputs, workdir, work, bundles, parts)
    parts.remove()
    return evaluation


def score(config: Config, dataset: Place, recycled: Place, reinforced: Place, shard: Shard, workdir: Place) -> None:
    """Score a shard of the images ahead of `evaluate`; nothing where it is the only one, or all is done."""
    inputs = _digests(dataset=dataset, recycled=recycled, reinforced=reinforced)
    if shard.count == 1 or is_finished(place_of("evaluate", stage_key("evaluate", config, inputs), workdir)):
        return

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        from rgsud_lib.evaluation.evaluate import score_part

        return score_part(config, *map(pulled, (dataset, recycled, reinforced)), shard, folder)

    _stage("score", config, _part(inputs, shard), workdir, work)


def export(config: Config, dataset: Place, reinforced: Place, evaluation: Place, workdir: Place) -> Place:
    """safetensors, ONNX and an MLflow model, each loaded back and compared with PyTorch; a model card.

    In a local workdir `export/` becomes a copy of the bundle.
    """

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        from rgsud_lib.export import export_model

        return export_model(config, *map(pulled, (dataset, reinforced, evaluation)), folder, run)

    bundles = {"dataset": dataset, "reinforced": reinforced, "evaluation": evaluation}
    folder = _stage("export", config, _digests(**bundles), workdir, work, bundles)
    if not is_remote(folder):
        link_tree(Path(folder), Path(workdir) / "export")
    return folder


def prepare_inputs(config: Config, sources: str, workdir: Place) -> dict[str, str]:
    """What `prepare` is made from: the image files and, where it keeps an earlier split, the dataset that has it."""
    from rgsud_lib.retraining.last_model import earlier_dataset

    return _sources(sources, earlier_dataset(config, sources, workdir))


def recycle_inputs(config: Config, dataset_digest: str, workdir: Place) -> dict[str, str]:
    """What `recycle` is made from: the dataset and, where it follows an earlier model, stage 2 of that."""
    from rgsud_lib.retraining.last_model import last_to_follow

    last = last_to_follow(config, dataset_digest, workdir)
    return {"dataset": dataset_digest} | ({"reinforced": last.reinforced.digest} if last else {})


def stage_key(stage: str, config: Config, inputs: dict[str, str]) -> str:
    """What names a stage's result: digests of its sections of the configuration and of its inputs."""
    return digest_of({"config": config.digest(*KINDS[stage][1]), "inputs": inputs})


def place_of(stage: str, key: str, workdir: Place) -> str:
    """Where a stage's bundle lies, or will."""
    return f"{str(workdir).rstrip('/')}/stages/{stage}-{key}"


def _sources(sources: str, last: LastModel | None) -> dict[str, str]:
    return {"sources": sources} | ({"earlier": last.dataset.digest} if last else {})


def _part(inputs: dict[str, str], shard: Shard) -> dict[str, str]:
    """The inputs of a shard of a stage's work; the sources are among the stage's own."""
    return {**inputs, "shard": f"{shard.index}/{shard.count}"}


def _parts(stage: str, config: Config, inputs: dict[str, str], shards: int, workdir: Place) -> Parts:
    """What was made ahead of a stage with these inputs by so many `check`s or `score`s."""
    several = Shard(0, shards).siblings() if shards > 1 else []
    keys = [stage_key(stage, config, _part(inputs, shard)) for shard in several]
    return Parts(KINDS[stage][0], [place_of(stage, key, workdir) for key in keys])


def _train_critic(config: Config, folder: Path) -> None:
    """The critic of a dataset that is being prepared, from its clean training images."""
    from functools import partial

    from rgsud_lib.data.manifest import CRITIC, MANIFEST, Images, Manifest, read_image
    from rgsud_lib.rewards.critic import Critic

    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    clean = Images(partial(read_image, folder), manifest.select("clean", "train"))
    Critic.train(clean, config.critic, config.degradation.name).save(folder / CRITIC)


def _digests(**bundles: Place) -> dict[str, str]:
    """The digests of a stage's input bundles, verified; the arguments' names are the kinds expected."""
    return {kind: open_anywhere(place, kind).digest for kind, place in bundles.items()}


def _train(stage: str, config: Config, bundles: dict[str, Place], workdir: Place, work: Work) -> Place:
    """`_stage`, in several processes where so configured: then the first of them comes here again and does it."""
    inputs = _digests(**bundles)
    key = stage_key(stage, config, inputs)
    place = place_of(stage, key, workdir)
    if not is_finished(place):
        from rgsud_lib.training.launch import launch

        if launch(stage, config, bundles, workdir, f"{stage}-{key}") and not is_finished(place):
            raise TrainingError(f"the processes of {stage} ended without leaving a bundle in {place}")
    return _stage(stage, config, inputs, workdir, work, bundles)


def _stage(
    stage: str,
    config: Config,
    inputs: dict[str, str],
    workdir: Place,
    work: Work,
    places: Mapping[str, Place] = {},
    parts: Parts | None = None,
) -> Place:
    """Return the stage's sealed bundle, doing or resuming `work` where it is not finished.

    `places`: where inputs lie, for the record. `parts`: what was done ahead, whose cost the bundle bears.
    """
    kind, sections = KINDS[stage]
    config_digest = config.digest(*sections)
    key = stage_key(stage, config, inputs)
    place = place_of(stage, key, workdir)

    def make(folder: Path, deliver: Callable[[], object]) -> None:
        logger.info("%s: working in %s", stage, folder)
        if stage in ON_GPU:
            check_node(stage, workdir)
        with Meter(place, folder, config) as meter, tracking.stage_run(stage, config, workdir, key) as run:
            for name, digest in inputs.items():
                run.log_input(name, digest, source=str(places.get(name, workdir)), context=stage)
            facts = work(folder, run)
            cost = meter.spent(parts.spent() if parts else ())
            settings = config.document(*sections)
            bundle = seal(folder, kind, config_digest, inputs, facts, settings=settings, cost=cost)
            run.log_metrics(stage_metrics(stage, cost, facts))
            # Before it is delivered: after a kill in between, the next attempt finds the bundle and opens no run.
            run.set_tags({BUNDLE_DIGEST: bundle.digest, BUNDLE_PATH: place})
            run.flush()
            deliver()
        meter.forget()
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)

    if is_remote(place):
        return finish(place, kind, make)
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock"):  # two processes training in one folder would spoil both
        if is_sealed(folder):
            logger.info("%s: finished before, taken from %s", stage, folder)
            return Path(open_bundle(folder, kind).path)
        make(folder, lambda: None)
    return folder
