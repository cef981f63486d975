"""The retraining DAG, for recurring runs: is there enough new rain? If so, the same as `training`."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from rgsud_components.new_data_check.component import new_data_check
from rgsud_pipelines.placement import place, profile
from rgsud_pipelines.training import core, exit_handler, uncached


def retraining_pipeline(placement: str = "gpu") -> GraphComponent:
    """The retraining pipeline for a placement profile, or `local`; raises ConfigError for an unknown one."""
    where = profile(placement)

    @dsl.pipeline(name="rgsud-retraining", description="Looks for new rain and, where there is enough, trains again")
    def retraining(config: str, rainy: str, clean: str, workdir: str, paired: str = ""):
        with exit_handler(where, config, rainy, clean, paired, workdir):
            check = uncached(place(new_data_check(config=config, rainy=rainy, workdir=workdir), where))
            with dsl.If(check.outputs["Output"] == "train", name="train"):
                core(where, config, rainy, clean, paired, workdir, look_again=True)

    return retraining
