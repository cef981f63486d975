"""The deraining DAG: a prefix of pictures and videos, without their rain, by the champion or another model.

Run again, it does what is missing: nothing is cached, each shard looks at what lies there.
"""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from rgsud_components.derain_plan.component import derain_plan
from rgsud_components.derain_shard.component import derain_shard
from rgsud_components.derain_summary.component import derain_summary
from rgsud_pipelines.placement import place, profile
from rgsud_pipelines.training import PARALLEL, uncached


def derain_pipeline(placement: str = "gpu") -> GraphComponent:
    """The deraining pipeline for a placement profile, or `local`; raises ConfigError for an unknown one."""
    where = profile(placement)

    @dsl.pipeline(name="rgsud-derain", description="Removes the rain from all pictures and videos below a prefix")
    def derain(config: str, rainy: str, derained: str, model: str = "models:/rgsud@champion"):
        places = {"rainy": rainy, "derained": derained}
        shards = uncached(place(derain_plan(config=config, **places, model=model), where)).output
        with dsl.ParallelFor(shards, parallelism=PARALLEL) as shard:
            done = uncached(place(derain_shard(config=config, **places, shard=shard), where))
        uncached(place(derain_summary(config=config, derained=derained, shards=dsl.Collected(done.output)), where))

    return derain
