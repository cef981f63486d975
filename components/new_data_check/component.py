"""A rainy prefix -> is there enough new or different rain to train again?"""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def new_data_check(config: str, rainy: str, workdir: str, report: dsl.Output[dsl.HTML]) -> str:
    """Compare the images at a prefix with those that the last model was trained on.

    Args:
        config: The configuration tree as a JSON document.
        rainy: Folder or s3:// prefix of rainy images.
        workdir: Where the last model's bundles lie.
        report: Page with the decision, its reasons, and the new images that are least like the known ones.

    Returns:
        "train" or "skip".
    """
    from pathlib import Path

    from rgsud_lib.config import parse_config
    from rgsud_lib.retraining.new_data import check_new_data
    from rgsud_lib.task import task

    with task("new_data_check"):
        return check_new_data(parse_config(config), rainy, workdir, Path(report.path)).answer
