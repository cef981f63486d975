"""Champion and challenger scored on the same images -> "promote" or "hold"."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def promotion_gate(config: str, workdir: str, dataset: dsl.Input[dsl.Dataset], exported: dsl.Input[dsl.Model]) -> str:
    """Register the exported model as challenger and compare it with the champion. Never cached.

    Args:
        config: The configuration tree as a JSON document; its section "gate" has the rules.
        workdir: Where the embedded MLflow database lies, if no tracking server is set.
        dataset: Bundle of kind "dataset"; its pairs and held-back images are the evaluation.
        exported: Bundle of kind "export".

    Returns:
        "promote" or "hold".
    """
    from rgsud_lib.config import parse_config
    from rgsud_lib.registry import promotion
    from rgsud_lib.task import fetch, task

    with task("promotion_gate"):
        return promotion.promotion_gate(parse_config(config), fetch(dataset), fetch(exported), workdir)
