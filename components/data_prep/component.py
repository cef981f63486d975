"""Images in folders or object storage -> a validated, split, digested dataset."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def data_prep(
    config: str, rainy: str, clean: str, paired: str, workdir: str, checked: list, dataset: dsl.Output[dsl.Dataset]
):
    """Validate, deduplicate, split and digest the images.

    Args:
        config: The configuration tree as a JSON document.
        rainy: Folder or s3:// prefix of rainy images.
        clean: Folder or s3:// prefix of clean images of other scenes.
        paired: Folder or s3:// prefix with rain/ and clean/ for the evaluation; empty for none.
        workdir: Where the stage works and resumes.
        checked: The shards that were checked ahead.
        dataset: Bundle of kind "dataset".
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.task import publish, task

    with task("prepare"):
        folder = stages.prepare(parse_config(config), rainy, clean, paired or None, workdir, len(checked))
        publish(folder, dataset)
