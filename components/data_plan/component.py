"""Images in folders or object storage -> the shards in which they are checked and scored."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def data_plan(config: str, rainy: str, clean: str, paired: str) -> list:
    """List the images, read none. Never cached: what lies there may have changed.

    Args:
        config: The configuration tree as a JSON document; `fan_out.images` says how many images make a shard.
        rainy: Folder or s3:// prefix of rainy images.
        clean: Folder or s3:// prefix of clean images of other scenes.
        paired: Folder or s3:// prefix with rain/ and clean/ for the evaluation; empty for none.

    Returns:
        At least one shard, INDEX/COUNT:DIGEST; the digest is that of all images' names and contents.
    """
    from rgsud_lib.config import parse_config
    from rgsud_lib.fan_out import plan_shards
    from rgsud_lib.task import task

    with task("plan"):
        return plan_shards(parse_config(config), rainy, clean, paired or None)
