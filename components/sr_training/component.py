"""Stage 2 of the method: training on, pulled by the rewards of stage 1."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def sr_training(
    config: str,
    workdir: str,
    dataset: dsl.Input[dsl.Dataset],
    recycled: dsl.Input[dsl.Model],
    reinforced: dsl.Output[dsl.Model],
):
    """Self-reinforcement training: pooled rewards become targets and go on being improved.

    Args:
        config: The configuration tree as a JSON document.
        workdir: Where the stage works and resumes.
        dataset: Bundle of kind "dataset".
        recycled: Bundle of kind "recycled".
        reinforced: Bundle of kind "reinforced": weights and reward pool.
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.task import fetch, publish, task

    with task("reinforce"):
        folder = stages.reinforce(parse_config(config), fetch(dataset), fetch(recycled), workdir)
        publish(folder, reinforced)
