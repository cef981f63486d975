"""The model card as a version's description on MLflow's page, with links to runs, pictures and the gate's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rgsud_lib.errors import BundleError
from rgsud_lib.evaluation.gate import Verdict
from rgsud_lib.model_card import CARD, GATE, STRIP, shortened, with_section

if TYPE_CHECKING:
    from mlflow.entities import Run

LENGTH = 5000  # characters, the database's limit
LAST = ("How to load it", "Made from", "Licences")  # left out first: the whole card, and the tags, have them


def judged(card: str, verdict: Verdict, champion: str | None) -> str:
    """The card with the gate's verdict in its section; one from before cards had that is left as it is."""
    against = f"champion version {champion}" if champion else "doing nothing, since there was no champion"
    rules = "\n".join(
        f"- {check.rule}: {'holds' if check.passed else 'fails'}; {check.text}" for check in verdict.checks
    )
    text = f"**{verdict.decision.capitalize()}**, compared with {against}.\n\n{rules}"
    try:
        return with_section(card, GATE, text)
    except BundleError:
        return card


def description(card: str, source: Run, gate_run: str = "") -> str:
    """At most LENGTH characters; `source`: the run that logged the model, `gate_run`: the id of the gate's."""
    run, experiment = source.info.run_id, source.info.experiment_id
    runs = {"pipeline run": source.data.tags.get("mlflow.parentRunId"), "export": run, "promotion gate": gate_run}
    page = f"#/experiments/{experiment}/runs"
    links = [f"[{name}]({page}/{run_id})" for name, run_id in runs.items() if run_id]
    links.append(f"[whole card]({page}/{run}/artifacts/{CARD})")
    title, _, rest = card.partition("\n")
    rest = rest.replace(f"]({STRIP})", f"](get-artifact?path={STRIP}&run_uuid={run})")
    note = f"\n\n*The [whole card]({page}/{run}/artifacts/{CARD}) has more sections.*"
    return shortened(f"{title}\n\n{' · '.join(links)}\n{rest}", LENGTH, note, LAST)
