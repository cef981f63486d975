"""The DAG: data preparation, reward recycling, self-reinforcement, evaluation, export."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from rgsud_components.data_prep.component import data_prep
from rgsud_components.evaluation.component import evaluation
from rgsud_components.export.component import export
from rgsud_components.reward_recycling.component import reward_recycling
from rgsud_components.sr_training.component import sr_training
from rgsud_pipelines.placement import place, profile


class Results(NamedTuple):
    """What the pipeline hands back."""

    evaluation: dsl.Artifact
    exported: dsl.Model


def training_pipeline(placement: str = "gpu") -> GraphComponent:
    """The training pipeline for a placement profile, or `local`; raises ConfigError for an unknown one."""
    where = profile(placement)

    @dsl.pipeline(name="rgsud-training", description="Unpaired image deraining: two image folders in, a model out")
    def training(config: str, rainy: str, clean: str, paired: str = "", workdir: str = "/mnt/rgsud") -> Results:
        data = place(data_prep(config=config, rainy=rainy, clean=clean, paired=paired, workdir=workdir), where)
        common = {"config": config, "workdir": workdir, "dataset": data.outputs["dataset"]}
        stage1 = place(reward_recycling(**common), where).outputs["recycled"]
        stage2 = place(sr_training(**common, recycled=stage1), where).outputs["reinforced"]
        scores = place(evaluation(**common, recycled=stage1, reinforced=stage2), where).outputs["evaluation"]
        model = place(export(**common, reinforced=stage2, evaluation=scores), where).outputs["exported"]
        return Results(evaluation=scores, exported=model)

    return training
