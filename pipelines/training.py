"""The training DAG: data preparation, reward recycling, self-reinforcement, evaluation, export, promotion.

Whatever becomes of it, the exit handler reports. `core` is what `retraining` does too.
"""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from rgsud_components.data_check.component import data_check
from rgsud_components.data_plan.component import data_plan
from rgsud_components.data_prep.component import data_prep
from rgsud_components.evaluation.component import evaluation
from rgsud_components.evaluation_shard.component import evaluation_shard
from rgsud_components.export.component import export
from rgsud_components.finalize.component import finalize
from rgsud_components.promotion.component import promotion
from rgsud_components.promotion_gate.component import promotion_gate
from rgsud_components.reward_recycling.component import reward_recycling
from rgsud_components.sr_training.component import sr_training
from rgsud_pipelines.placement import Profile, place, profile

PARALLEL = 8  # shards at work at once


def training_pipeline(placement: str = "gpu") -> GraphComponent:
    """The training pipeline for a placement profile, or `local`; raises ConfigError for an unknown one."""
    where = profile(placement)

    @dsl.pipeline(name="rgsud-training", description="Unpaired image deraining: two image folders in, a model out")
    def training(config: str, rainy: str, clean: str, workdir: str, paired: str = ""):
        with exit_handler(where, config, rainy, clean, paired, workdir):
            core(where, config, rainy, clean, paired, workdir)

    return training


def exit_handler(
    where: Profile | None, config: str, rainy: str, clean: str, paired: str, workdir: str
) -> dsl.ExitHandler:
    """What is done inside is reported on, whatever becomes of it."""
    last = finalize(config=config, rainy=rainy, clean=clean, paired=paired, workdir=workdir)
    return dsl.ExitHandler(uncached(place(last, where)), name="run")


def core(
    where: Profile | None, config: str, rainy: str, clean: str, paired: str, workdir: str, look_again: bool = False
) -> None:
    """From image folders to an exported model and, where the gate lets it pass, a new champion.

    `look_again`: at what an earlier model learnt from, which KFP's cache does not see.
    """
    images = {"config": config, "rainy": rainy, "clean": clean, "paired": paired}
    shards = uncached(place(data_plan(**images), where)).output
    with dsl.ParallelFor(shards, parallelism=PARALLEL) as shard:
        check = place(data_check(**images, workdir=workdir, shard=shard), where)
    data = place(data_prep(**images, workdir=workdir, checked=dsl.Collected(check.output)), where)
    if look_again:
        uncached(data)
    common = {"config": config, "workdir": workdir, "dataset": data.outputs["dataset"]}
    stage1 = place(reward_recycling(**common), where).outputs["recycled"]
    stage2 = place(sr_training(**common, recycled=stage1), where).outputs["reinforced"]
    models = {"recycled": stage1, "reinforced": stage2}
    with dsl.ParallelFor(shards, parallelism=PARALLEL) as shard:
        score = place(evaluation_shard(**common, **models, shard=shard), where)
    scores = place(evaluation(**common, **models, scored=dsl.Collected(score.output)), where).outputs["evaluation"]
    model = place(export(**common, reinforced=stage2, evaluation=scores), where).outputs["exported"]
    gate = uncached(place(promotion_gate(**common, exported=model), where))
    with dsl.If(gate.output == "promote", name="promote"):
        uncached(place(promotion(workdir=workdir, exported=model), where))


def uncached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A task whose result depends on more than its arguments."""
    return task.set_caching_options(False)
