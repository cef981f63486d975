"""A shard of the images -> every model's scores on them, which evaluation puts together."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def evaluation_shard(
    config: str,
    workdir: str,
    shard: str,
    dataset: dsl.Input[dsl.Dataset],
    recycled: dsl.Input[dsl.Model],
    reinforced: dsl.Input[dsl.Model],
) -> str:
    """Score a shard of the images. Where it is the only one, evaluation does that itself.

    Args:
        config: The configuration tree as a JSON document.
        workdir: Where the scores are left.
        shard: Of data_plan.
        dataset: Bundle of kind "dataset".
        recycled: Bundle of kind "recycled".
        reinforced: Bundle of kind "reinforced".

    Returns:
        The shard.
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.fan_out import Shard
    from rgsud_lib.task import fetch, task

    with task("score"):
        models = fetch(recycled), fetch(reinforced)
        stages.score(parse_config(config), fetch(dataset), *models, Shard.parse(shard), workdir)
        return shard
