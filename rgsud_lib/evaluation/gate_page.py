"""verdict.html: what the gate decided and why, with both models' pictures side by side."""

from __future__ import annotations

from rgsud_lib.evaluation.evaluate import Evaluation
from rgsud_lib.evaluation.gate import CLEAN, Contest, Verdict
from rgsud_lib.evaluation.page import render_page
from rgsud_lib.evaluation.pictures import Picture, Strip

STRIPS = 6


def gate_page(evaluation: Evaluation, contest: Contest, verdict: Verdict, challenger: str, champion: str | None) -> str:
    """One HTML file; `challenger` and `champion` are versions."""
    return render_page(
        "rgsud_lib.evaluation",
        "gate.html",
        verdict=verdict,
        challenger=challenger,
        champion=champion,
        strips=_strips(evaluation) if contest.challenger.values else [],
        warnings=evaluation.warnings,
        judges=list(contest.judges),
        dataset=evaluation.data.digest,
    )


def _strips(evaluation: Evaluation) -> list[Strip]:
    """The first rainy images and two clean ones, which should stay as they are."""
    rainy = [case for case in evaluation.cases if case.group != CLEAN][: STRIPS - 2]
    clean = [case for case in evaluation.cases if case.group == CLEAN][:2]
    strips = []
    for case in rainy + clean:
        pictures = [
            Picture("before" if model == "input" else model, evaluation.output(case, model))
            for model in ("input", "champion", "challenger")
            if model in evaluation.models
        ]
        if case.clean and case.group != CLEAN:
            pictures.append(Picture("clean", evaluation.data.image(case.clean)))
        strips.append(Strip(case.name, "clean image" if case.group == CLEAN else "rainy image", "", pictures))
    return strips
