"""A version's description: the card with links, a picture and the verdict, within the database's length."""

from __future__ import annotations

from types import SimpleNamespace

from rgsud_lib.evaluation.gate import Check, Verdict, hold
from rgsud_lib.registry.description import LENGTH, description, judged

RUN = SimpleNamespace(
    info=SimpleNamespace(run_id="r1", experiment_id="7"), data=SimpleNamespace(tags={"mlflow.parentRunId": "p1"})
)
CARD = """# Card

Intro.

## Results

Good.

## Sample images

![before](strip.png)

## Promotion gate

Not judged yet.

## How to load it

Load.

## Licences

Free.
"""


def test_links_and_pictures_are_those_of_the_server() -> None:
    text = description(CARD, RUN, "g1")
    first, _, links, *_ = text.splitlines()
    assert first == "# Card"
    assert links == (
        "[pipeline run](#/experiments/7/runs/p1) · [export](#/experiments/7/runs/r1) · "
        "[promotion gate](#/experiments/7/runs/g1) · [whole card](#/experiments/7/runs/r1/artifacts/model_card.md)"
    )
    assert "![before](get-artifact?path=strip.png&run_uuid=r1)" in text
    assert "promotion gate](" not in description(CARD, RUN)


def test_the_verdict_takes_the_place_of_its_section() -> None:
    verdict = Verdict("promote", (Check("sound", True, "it loads"), Check("quick", True, "0.1 s")))
    card = judged(CARD, verdict, "3")
    assert "Not judged yet" not in card and card.count("## ") == CARD.count("## ")
    assert "**Promote**, compared with champion version 3.\n\n- sound: holds; it loads\n- quick: holds; 0.1 s\n" in card
    held = judged(CARD, hold("sound challenger", "is broken"), None)
    assert "**Hold**, compared with doing nothing" in held and "- sound challenger: fails; is broken" in held
    assert judged("# Old card\n", verdict, None) == "# Old card\n"


def test_a_long_card_keeps_whole_sections_and_says_where_the_others_are() -> None:
    text = description(CARD.replace("Load.", "x" * 3000).replace("Free.", "y" * 3000), RUN)
    assert len(text) <= LENGTH
    assert "## How to load it" not in text and "## Licences" in text and "## Promotion gate" in text
    assert text.endswith("*The [whole card](#/experiments/7/runs/r1/artifacts/model_card.md) has more sections.*")
    endless = description(CARD.replace("Intro.", "z" * 9000), RUN)
    assert len(endless) == LENGTH and endless.endswith("has more sections.*")
