"""The exit handler: whatever became of a run, its status, cost and lineage are written down."""

from kfp import dsl

from rgsud_components._image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def finalize(
    config: str,
    rainy: str,
    clean: str,
    paired: str,
    workdir: str,
    status: dsl.PipelineTaskFinalStatus,
    report: dsl.Output[dsl.Markdown],
    cost: dsl.Output[dsl.Metrics],
):
    """Close the pipeline's MLflow run and report on it.

    Args:
        config: The configuration tree as a JSON document.
        rainy: Folder or s3:// prefix of rainy images.
        clean: Folder or s3:// prefix of clean images of other scenes.
        paired: Folder or s3:// prefix with rain/ and clean/ for the evaluation; empty for none.
        workdir: Where the stages worked.
        status: How the pipeline ended; KFP fills this in.
        report: Status, cost and lineage of the run.
        cost: Seconds by stage and in all, and GPU seconds.
    """
    from rgsud_lib.task import task
    from rgsud_lib.tracking.finalize import finalize
    from rgsud_lib.tracking.run_report import publish_report

    with task("finalize", always=True):
        sources = (rainy, clean, paired or None)
        document = finalize(config, sources, workdir, status.state, status.error_message or "")
        publish_report(document, report, cost)
