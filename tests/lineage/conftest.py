from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rgsud_lib.bundle import Bundle, seal
from rgsud_lib.stages import STAGES

Make = Callable[..., Bundle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Seals a stage's bundle in a workdir, made from other bundles: `make("recycle", dataset, named="a")`."""

    def make_one(stage: str, *inputs: Bundle, named: str = "a", workdir: str = "runs", **others: object) -> Bundle:
        folder = tmp_path / workdir / "stages" / f"{stage}-{named}"
        folder.mkdir(parents=True)
        (folder / "result.txt").write_text(f"{stage} {named}")
        if stage in ("recycle", "reinforce"):
            (folder / "derainer.safetensors").write_text(f"weights {stage} {named}")
        digests = {bundle.kind: bundle.digest for bundle in inputs}
        facts = others.pop("facts", {})
        return seal(folder, STAGES[stage][0], "c" * 16, digests | others, facts)

    return make_one


@pytest.fixture
def chain(make: Make) -> dict[str, Bundle]:
    """One pipeline run's bundles by kind."""
    rainy, clean = "/photos/rain", "s3://photos/clean"
    dataset = make("prepare", sources="5" * 16, facts={"sources": {"rainy": rainy, "clean": clean}})
    recycled = make("recycle", dataset)
    reinforced = make("reinforce", dataset, recycled)
    evaluation = make("evaluate", dataset, recycled, reinforced)
    export = make("export", dataset, reinforced, evaluation, facts={"weights_digest": "f" * 16})
    return {bundle.kind: bundle for bundle in (dataset, recycled, reinforced, evaluation, export)}
