"""Scores of the rainy input and of the model after each stage, with a report to look at."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def evaluation(
    config: str,
    workdir: str,
    scored: list,
    dataset: dsl.Input[dsl.Dataset],
    recycled: dsl.Input[dsl.Model],
    reinforced: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
):
    """Score input, warm start, stage 1 and stage 2 on the pairs and on held-back rainy images.

    Args:
        config: The configuration tree as a JSON document.
        workdir: Where the stage works and resumes.
        scored: The shards that were scored ahead.
        dataset: Bundle of kind "dataset".
        recycled: Bundle of kind "recycled".
        reinforced: Bundle of kind "reinforced".
        evaluation: Bundle of kind "evaluation": metrics, per-image table, HTML report.
    """
    from rgsud_lib import stages
    from rgsud_lib.config import parse_config
    from rgsud_lib.task import fetch, publish, task

    with task("evaluate"):
        models = fetch(recycled), fetch(reinforced)
        folder = stages.evaluate(parse_config(config), fetch(dataset), *models, workdir, len(scored))
        publish(folder, evaluation)
