"""The trained derainer -> files that others can load, each checked against PyTorch."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def export(
    config: str,
    workdir: str,
    dataset: dsl.Input[dsl.Dataset],
    reinforced: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    exported: dsl.Output[dsl.Model],
):
    """Write safetensors, ONNX, an MLflow model and a model card.

    Args:
        config: The configuration tree as a JSON document.
        workdir: Where the stage works and resumes.
        dataset: Bundle of kind "dataset".
        reinforced: Bundle of kind "reinforced".
        evaluation: Bundle of kind "evaluation".
        exported: Bundle of kind "export".
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.task import fetch, publish, task

    with task("export"):
        inputs = fetch(dataset), fetch(reinforced), fetch(evaluation)
        folder = stages.export(parse_config(config), *inputs, workdir)
        publish(folder, exported)
