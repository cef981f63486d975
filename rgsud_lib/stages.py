"""The five stages, as the paper's steps: prepare, recycle, reinforce, evaluate, export.

`rgsud run` on a laptop, a KFP task and a test all call these. Each works in
`WORKDIR/stages/<stage>-<key>/`, where the key digests all that changes its result: a finished
folder is returned at once, an unfinished one is resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rgsud_lib import tracking
from rgsud_lib.bundle import is_sealed, open_bundle, seal
from rgsud_lib.config import Config, digest_of
from rgsud_lib.files import link_tree
from rgsud_lib.task import exclusive

logger = logging.getLogger("rgsud")


def prepare(config: Config, rainy: str, clean: str, paired: str | None, workdir: Path) -> Path:
    """Validate, deduplicate, split and digest the images of folders or `s3://` prefixes: a "dataset" bundle."""
    from rgsud_lib.data.prepare import prepare_dataset, source_digest

    inputs = {"sources": source_digest(rainy, clean, paired)}

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        facts = prepare_dataset(config.data, rainy, clean, paired, folder)
        run.log_artifact(folder / "report.html")
        run.log_artifact(folder / "manifest.json")
        return facts

    return _stage("prepare", "dataset", config, ("data",), inputs, workdir, work)


def recycle(config: Config, dataset: Path, workdir: Path) -> Path:
    """Stage 1, reward recycling: an optional warm start, then unpaired training that fills the reward pool."""
    from rgsud_lib.training.run import train_recycle

    inputs = {"dataset": open_bundle(dataset, "dataset").digest}
    sections = ("derainer", "method", "warm_start", "training", "reward")
    return _stage(
        "recycle",
        "recycled",
        config,
        sections,
        inputs,
        workdir,
        lambda folder, run: train_recycle(config, dataset, folder, run),
    )


def reinforce(config: Config, dataset: Path, recycled: Path, workdir: Path) -> Path:
    """Stage 2, self-reinforcement: pooled rewards replace the degradation U-Net's output and pull the derainer."""
    from rgsud_lib.training.run import train_reinforce

    inputs = {"dataset": open_bundle(dataset, "dataset").digest, "recycled": open_bundle(recycled, "recycled").digest}
    sections = ("derainer", "method", "warm_start", "training", "reward", "reinforcement")
    return _stage(
        "reinforce",
        "reinforced",
        config,
        sections,
        inputs,
        workdir,
        lambda folder, run: train_reinforce(config, dataset, recycled, folder, run),
    )


def evaluate(config: Config, dataset: Path, recycled: Path, reinforced: Path, workdir: Path) -> Path:
    """Score input, warm start, stage 1 and stage 2 on the pairs and the held-back rainy images; write the report."""
    from rgsud_lib.evaluation.evaluate import evaluate_models

    inputs = {
        "dataset": open_bundle(dataset, "dataset").digest,
        "recycled": open_bundle(recycled, "recycled").digest,
        "reinforced": open_bundle(reinforced, "reinforced").digest,
    }

    def work(folder: Path, run: tracking.StageRun) -> dict[str, Any]:
        facts = evaluate_models(config, dataset, recycled, reinforced, folder)
        for name in ("report.html", "strip.png", "metrics.json", "per_image.csv"):
            run.log_artifact(folder / name)
        run.log_metrics(facts["metrics"])
        return facts

    return _stage("evaluate", "evaluation", config, ("reward", "evaluation"), inputs, workdir, work)


def export(config: Config, dataset: Path, reinforced: Path, evaluation: Path, workdir: Path) -> Path:
    """safetensors, ONNX and an MLflow model, each loaded back and compared with PyTorch; a model card."""
    from rgsud_lib.export import export_model

    inputs = {
        "dataset": open_bundle(dataset, "dataset").digest,
        "reinforced": open_bundle(reinforced, "reinforced").digest,
        "evaluation": open_bundle(evaluation, "evaluation").digest,
    }
    folder = _stage(
        "export", "export", config, ("derainer", "export"), inputs, workdir,
        lambda folder, run: export_model(config, dataset, reinforced, evaluation, folder, run),
    )  # fmt: skip
    link_tree(folder, Path(workdir) / "export")
    return folder


def _stage(
    stage: str, kind: str, config: Config, sections: tuple[str, ...], inputs: dict[str, str], workdir: Path,
    work: Callable[[Path, tracking.StageRun], dict[str, Any]],
) -> Path:  # fmt: skip
    """Return the stage's sealed bundle, doing or resuming `work(folder, run) -> facts` where it is not finished."""
    config_digest = config.digest(*sections)
    key = digest_of({"config": config_digest, "inputs": inputs})
    folder = Path(workdir) / "stages" / f"{stage}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    from rgsud_lib.training.checkpoint import discard_checkpoint

    with exclusive(folder / ".lock"):  # two processes training in one folder would spoil both
        if is_sealed(folder):
            logger.info("%s: finished before, taken from %s", stage, folder)
            return open_bundle(folder, kind).path
        logger.info("%s: working in %s", stage, folder)
        with tracking.stage_run(stage, config, Path(workdir), key) as run:
            for name, digest in inputs.items():
                run.log_input(name, digest, source=str(workdir), context=stage)
            facts = work(folder, run)
            bundle = seal(folder, kind, config_digest, inputs, facts)
            discard_checkpoint(folder)
            run.set_tags({"rgsud.bundle_digest": bundle.digest, "rgsud.bundle_path": str(folder)})
    return folder
