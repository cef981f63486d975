"""A shard of the pictures and videos -> the same without their rain, and a summary that derain_summary reads."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def derain_shard(config: str, rainy: str, derained: str, shard: str) -> str:
    """Derain what is not there yet, or was made from another original or by another model. Never cached.

    Args:
        config: The configuration tree as a JSON document; tiles, overlap and mirror are those of `evaluation`.
        rainy: Folder or s3:// prefix of rainy pictures and videos.
        derained: Folder or s3:// prefix of the results.
        shard: Of derain_plan.

    Returns:
        The shard.
    """
    from rgsud_lib.config import parse_config
    from rgsud_lib.inference.batch import Share, derain_share
    from rgsud_lib.task import task

    with task("derain"):
        derain_share(parse_config(config), rainy, derained, Share.parse(shard))
        return shard
