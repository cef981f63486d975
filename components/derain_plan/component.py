"""Pictures and videos in a folder or object storage, and a model -> the shards in which they are derained."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def derain_plan(config: str, rainy: str, derained: str, model: str) -> list:
    """List the files, read none. Never cached: what lies there, or serves, may have changed.

    Args:
        config: The configuration tree as a JSON document; `fan_out.images` says how many files make a shard.
        rainy: Folder or s3:// prefix of rainy pictures and videos.
        derained: Folder or s3:// prefix of the results.
        model: models:/ or runs:/ address, a model file or a workdir (s3:// too).

    Returns:
        Shards, INDEX/COUNT:DIGEST MODEL; an alias of the registry has become the version that it means now.
    """
    from rgsud_lib.config import parse_config
    from rgsud_lib.inference.batch import plan_shares
    from rgsud_lib.task import task

    with task("plan"):
        return plan_shares(parse_config(config), rainy, derained, model)
