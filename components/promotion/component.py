"""A challenger that passed the gate becomes the champion of the model registry."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def promotion(workdir: str, exported: dsl.Input[dsl.Model]):
    """Move the aliases champion and previous; refused if the champion changed after the gate. Never cached.

    Args:
        workdir: Where the embedded MLflow database lies, if no tracking server is set.
        exported: Bundle of kind "export", registered by the gate.
    """
    from rgsud_lib.registry import promotion
    from rgsud_lib.task import fetch, task

    with task("promotion"):
        promotion.promote_exported(fetch(exported), workdir)
