"""The two steps after export: the gate, which registers and compares, and the promotion, which moves the aliases.

Neither is a stage with a bundle: what they read and write is the registry, whose state changes from run to run.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib import tracking
from rgsud_lib.bundle import Bundle, open_bundle
from rgsud_lib.config import Config, digest_of
from rgsud_lib.doctor import check_node
from rgsud_lib.errors import RegistryError
from rgsud_lib.evaluation.gate import Verdict, decide, hold
from rgsud_lib.files import write_bytes, write_json
from rgsud_lib.lineage import behind, inputs_of
from rgsud_lib.model_card import CARD
from rgsud_lib.registry import CHAMPION, COST, Registry, explained
from rgsud_lib.registry.description import description, judged
from rgsud_lib.registry.download import WEIGHTS
from rgsud_lib.registry.promotion_log import NONE, promote, rolled_back, settle
from rgsud_lib.storage.remote import local_root, open_anywhere, pulled
from rgsud_lib.tracking.mlflow_models import MODEL_ID

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from rgsud_lib.cost.spent import Spent
    from rgsud_lib.data.manifest import Dataset

logger = logging.getLogger("rgsud")
DECISION, AGAINST, REASONS, GATE_RUN = "rgsud.gate", "rgsud.gate_against", "rgsud.gate_reasons", "rgsud.gate_run_id"
FROM_RUN = {
    MODEL_ID: MODEL_ID,
    "rgsud.pipeline_run_id": "mlflow.parentRunId",
    "rgsud.seed": "rgsud.seed",
    "rgsud.commit": "mlflow.source.git.commit",
}
REASONS_LENGTH = 1000  # characters of a tag; verdict.json has all


def promotion_gate(config: Config, dataset: Path | str, exported: Path | str, workdir: Path | str) -> str:
    """Register the export as challenger, compare it with the champion on the same images: "promote" or "hold".

    The verdict is the MLflow run "gate", tags of the version, and `WORKDIR/gate/` (of the node's cache for a workdir in
    S3). Without a registry: "hold". The bundles may be `s3://` addresses.
    """
    from rgsud_lib.data.manifest import Dataset

    check_node("gate", workdir)
    bundle, data = open_bundle(pulled(exported), "export"), Dataset.open(pulled(dataset))
    key = digest_of({"gate": config.digest("gate"), "export": bundle.digest, "dataset": data.digest})
    folder = local_root(workdir) / "gate"
    folder.mkdir(parents=True, exist_ok=True)
    with tracking.stage_run("gate", config, workdir, key) as run:
        run.log_input("dataset", data.digest, source=str(workdir), context="gate")
        run.log_input("export", bundle.digest, source=str(workdir), context="gate")
        try:
            verdict = _judge(config, data, bundle, workdir, run)
        except RegistryError as error:
            verdict = hold("registry", str(error))
        write_json(folder / "verdict.json", verdict.document())
        run.log_artifact(folder / "verdict.json")
        run.set_tags({DECISION: verdict.decision, REASONS: "; ".join(verdict.reasons)[:REASONS_LENGTH]})
    logger.info("gate: %s\n  %s", verdict.decision, "\n  ".join(verdict.reasons))
    return verdict.decision


def promote_exported(exported: Path | str, workdir: Path | str) -> None:
    """Make the export's version the champion, as its gate decided.

    Raises RegistryError: not registered, not passed, rolled back since, or the champion is another than the gate
    compared with.
    """
    bundle = open_anywhere(exported, "export")
    registry = Registry.open(workdir)
    version = registry.registered(bundle.digest)
    if version is None or version.tags.get(DECISION) != "promote":
        state = "was never registered" if version is None else f"has the verdict {version.tags.get(DECISION)!r}"
        raise RegistryError(f"the export {bundle.digest} {state} at {registry.address}; run the promotion gate first")
    if words := rolled_back(registry, str(version.version)):
        raise RegistryError(f"version {version.version} at {registry.address} {words}")
    details = {name: value for name, value in version.tags.items() if name in (REASONS, GATE_RUN)}
    promote(registry, str(version.version), version.tags[AGAINST], "passed the promotion gate", details)
    logger.info("promotion: version %s is the champion at %s", version.version, registry.address)
    _log_manifest(registry, version)


def _log_manifest(registry: Registry, version: ModelVersion) -> None:
    """Keep the version's InferenceService with the gate's run, where it ran in an image; on a laptop it does not."""
    from rgsud_lib.serving.manifest import inference_service

    image, run = os.environ.get("RGSUD_IMAGE"), version.tags.get(GATE_RUN)
    if not image or not run:
        return
    try:
        manifest = inference_service(version, image)
    except RegistryError as error:  # the promotion is done, and right
        logger.warning("no InferenceService was written: %s", error)
        return
    with explained(registry.address):
        registry.client.log_text(run, manifest, "inference-service.yaml")


def _judge(config: Config, data: Dataset, bundle: Bundle, workdir: Path | str, run: tracking.StageRun) -> Verdict:
    from rgsud_lib.evaluation.contest import hold_contest
    from rgsud_lib.evaluation.gate_page import gate_page
    from rgsud_lib.rewards.cache import ScoreCache

    folder = local_root(workdir) / "gate"
    registry = Registry.open(workdir)
    settle(registry)
    version = _register(registry, config, bundle, run, workdir)
    champion = registry.aliases().get(CHAMPION)
    if champion == str(version.version):
        return hold("new", f"version {champion} is the champion already")
    if words := rolled_back(registry, str(version.version)):
        verdict = hold("rolled back", f"version {version.version} {words}")
        _record(registry, version, verdict, champion, run, _card(bundle, workdir), folder)
        return verdict
    models = {"challenger": bundle.path / WEIGHTS}
    rivals = [version]
    if champion is not None:
        rivals.append(registry.find(champion))
        models["champion"] = registry.fetch(rivals[-1])
    _link(registry, rivals, run)
    with ScoreCache(folder / "scores.sqlite") as cache:
        contest, evaluation = hold_contest(config, data, models, cache)
        verdict = decide(config.gate, contest)
        page = gate_page(evaluation, contest, verdict, str(version.version), champion)
    write_bytes(folder / "verdict.html", page.encode())
    run.log_artifact(folder / "verdict.html")
    run.log_metrics(_metrics(verdict))
    _record(registry, version, verdict, champion, run, _card(bundle, workdir), folder)
    return verdict


def _record(
    registry: Registry, version: ModelVersion, verdict: Verdict, champion: str | None, run: tracking.StageRun,
    card: str, folder: Path,
) -> None:  # fmt: skip
    """The verdict as tags of the version, and in its card: the description, and a file in `folder` and of the run."""
    run.flush()  # for its id
    tags = {DECISION: verdict.decision, AGAINST: champion or NONE, GATE_RUN: run.run_id or ""}
    registry.set_tags(str(version.version), tags | {REASONS: "; ".join(verdict.reasons)[:REASONS_LENGTH]})
    card = judged(card, verdict, champion)
    registry.describe(str(version.version), description(card, registry.run(version.run_id), run.run_id or ""))
    write_bytes(folder / CARD, card.encode())
    run.log_artifact(folder / CARD)


def _link(registry: Registry, versions: list[ModelVersion], run: tracking.StageRun) -> None:
    """The models that the gate compares, as inputs of its run."""
    from mlflow.entities import LoggedModelInput

    run.flush()  # for its id
    models = [LoggedModelInput(version.tags[MODEL_ID]) for version in versions if MODEL_ID in version.tags]
    if run.run_id and models:
        with explained(registry.address):
            registry.client.log_inputs(run.run_id, models=models)


def _register(
    registry: Registry, config: Config, bundle: Bundle, run: tracking.StageRun, workdir: Path | str
) -> ModelVersion:
    """The export's version. Where no run logged its model (tracking was off then), this run does."""
    from rgsud_lib.cost.spent import documents
    from rgsud_lib.tracking.mlflow_models import find_logged_model

    model = find_logged_model(registry.client, registry.experiment, bundle.digest)
    if model is None:
        model = _log_model(bundle, registry, run)
    tags = {
        **_made_from(bundle, workdir),
        "rgsud.weights_digest": bundle.facts["weights_digest"],
        "rgsud.code_version": bundle.code_version,
        "rgsud.config_digest": config.digest(),
        "rgsud.preset": config.preset,
        "rgsud.reward": config.reward.scorer,
        "rgsud.judge": config.evaluation.judge,
    }
    spent = _spent(bundle, workdir)
    tags |= {COST: json.dumps(documents(spent))} if spent else {}
    source = registry.run(registry.client.get_logged_model(model).source_run_id)
    tags |= {name: source.data.tags[tag] for name, tag in FROM_RUN.items() if tag in source.data.tags}
    return registry.register(bundle.digest, model, tags, description(_card(bundle, workdir), source))


def _made_from(bundle: Bundle, workdir: Path | str) -> dict[str, str]:
    """Digests of all that a model was made from, the nearest of each kind, as far as its workdir still has them."""
    tags: dict[str, str] = {}
    for one in behind(bundle, workdir):
        for kind, digest in inputs_of(one):
            tags.setdefault(f"rgsud.{kind}_digest", digest)
    return tags


def _spent(bundle: Bundle, workdir: Path | str) -> list[Spent]:
    from rgsud_lib.cost.model import all_spent, model_cost
    from rgsud_lib.cost.spent import merge

    return merge(all_spent(model_cost(behind(bundle, workdir))))


def _card(bundle: Bundle, workdir: Path | str) -> str:
    """The model card, with what the model cost where that is known."""
    from rgsud_lib.cost.spent import words

    card, spent = (bundle.path / CARD).read_text(), _spent(bundle, workdir)
    title, _, rest = card.partition("\n")
    return f"{title}\n\nCost: {words(spent)}.\n{rest}" if spent else card


def _log_model(bundle: Bundle, registry: Registry, run: tracking.StageRun) -> str:
    from rgsud_lib.export import NAME, save_mlflow_model
    from rgsud_lib.tracking.mlflow_models import add_companions

    with tempfile.TemporaryDirectory() as folder:
        model = save_mlflow_model(bundle.path / f"{NAME}.onnx", Path(folder) / "model")
        add_companions(bundle.path, model)
        run.log_model(model)
    run.flush()
    logged = registry.client.get_run(run.run_id).data.tags.get(MODEL_ID) if run.run_id else None
    if logged is None:
        raise RegistryError(f"the model could not be stored at {registry.address}; the warnings above say why")
    return str(logged)


def _metrics(verdict: Verdict) -> dict[str, float]:
    gains = {f"gate/{check.rule}/{gain.metric}/gain": gain.gain for check in verdict.checks for gain in check.gains}
    return {name.replace(" ", "_"): value for name, value in gains.items()}
