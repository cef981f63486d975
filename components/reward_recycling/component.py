"""Stage 1 of the method: a dataset -> a first derainer and its pool of rewards."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def reward_recycling(config: str, workdir: str, dataset: dsl.Input[dsl.Dataset], recycled: dsl.Output[dsl.Model]):
    """Optional warm start, then unpaired training that keeps each rainy image's best output as its reward.

    Args:
        config: The configuration tree as a JSON document.
        workdir: Where the stage works and resumes.
        dataset: Bundle of kind "dataset".
        recycled: Bundle of kind "recycled": weights and reward pool.
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.task import fetch, publish, task

    with task("recycle"):
        folder = stages.recycle(parse_config(config), fetch(dataset), workdir)
        publish(folder, recycled)
