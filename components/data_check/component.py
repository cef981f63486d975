"""A shard of the images -> their records and pictures, which data_prep puts together."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def data_check(config: str, rainy: str, clean: str, paired: str, workdir: str, shard: str) -> str:
    """Decode, validate and hash a shard of the images. Where it is the only one, data_prep does that itself.

    Args:
        config: The configuration tree as a JSON document.
        rainy: Folder or s3:// prefix of rainy images.
        clean: Folder or s3:// prefix of clean images of other scenes.
        paired: Folder or s3:// prefix with rain/ and clean/ for the evaluation; empty for none.
        workdir: Where the records and pictures are left.
        shard: Of data_plan.

    Returns:
        The shard.
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.fan_out import Shard
    from rgsud_lib.task import task

    with task("check"):
        stages.check(parse_config(config), rainy, clean, paired or None, Shard.parse(shard), workdir)
        return shard
