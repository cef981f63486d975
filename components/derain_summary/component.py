"""The shards' summaries -> one, and a failed run where too many files failed."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def derain_summary(config: str, derained: str, shards: list) -> str:
    """Write derained.json beside the results; fail where more than `fan_out.failures` of the files did. Never cached.

    Args:
        config: The configuration tree as a JSON document; `fan_out.failures` is the share that may fail.
        derained: Folder or s3:// prefix of the results.
        shards: Of derain_shard, all of them.

    Returns:
        How many files were derained, were there before, and failed.
    """
    from rgsud_lib.config import parse_config
    from rgsud_lib.inference.batch import Share, sum_up
    from rgsud_lib.task import task

    with task("summary"):
        return sum_up(parse_config(config), derained, list(map(Share.parse, shards)))
