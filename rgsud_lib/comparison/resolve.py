"""What people call a run, to the evaluation bundle that it ended in.

A workdir is its newest evaluation. Any stage's bundle, and any run in MLflow (a pipeline's or a stage's), is the
evaluation it belongs to. The beginning of a stage folder's name or key, of a bundle's digest or of an MLflow run id
is enough where nothing else begins so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rgsud_lib.bundle import Bundle
from rgsud_lib.errors import BundleError, ComparisonError
from rgsud_lib.lineage import Place, newest_first, read, workdir_of
from rgsud_lib.storage.remote import is_finished, local_root, newest
from rgsud_lib.storage.s3 import is_remote

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

KIND = "evaluation"
LEAST = 3  # characters of a beginning


def resolve(name: str, workdir: Place) -> Place:
    """The evaluation of the run that `name` means; `workdir` is where beginnings of names are looked for.

    Raises ComparisonError: nothing, or several, found; BundleError: the run has no evaluation.
    """
    if is_remote(name) or Path(name).exists():
        return _at(name.rstrip("/"))
    if len(name) < LEAST:
        raise ComparisonError(f"{name!r} is too short to tell a run by; give at least {LEAST} characters, or a folder")
    found = list(dict.fromkeys([*_in_workdir(name, workdir), *_in_mlflow(name, workdir)]))
    if len(found) == 1:
        return found[0]
    if found:
        raise ComparisonError(f"{name!r} may mean {', '.join(found)}; give more of it")
    raise ComparisonError(
        f"{name!r} is no folder or s3:// address, and no stage in {workdir} and no run in MLflow begins so; "
        "see WORKDIR/stages, or the run ids on the MLflow page"
    )


def last(count: int, workdir: Place) -> list[Place]:
    """The workdir's newest evaluations, the oldest of them first. Raises ComparisonError: there are fewer."""
    places = [str(bundle.path) for _, bundle in newest_first(workdir) if bundle.kind == KIND]
    if len(places) < count:
        raise ComparisonError(f"{workdir} has {len(places)} evaluations, {count} are asked for; name runs elsewhere")
    return list(reversed(places[:count]))


def mlflow_client(workdir: Place) -> tuple[MlflowClient, str] | None:
    """A client and our experiment's id; None where there is no tracking, or the workdir has no database yet."""
    from rgsud_lib.registry import unavailable

    if unavailable() or not (os.environ.get("MLFLOW_TRACKING_URI") or (local_root(workdir) / "mlflow.db").exists()):
        return None
    from rgsud_lib.tracking import mlflow_store

    client = mlflow_store.connect(workdir)
    return client, mlflow_store.find_experiment(client, workdir)


def _at(place: str) -> str:
    if not is_finished(place):
        return str(newest(KIND, place))
    return _evaluation_of(read(place))


def _evaluation_of(bundle: Bundle) -> str:
    """The evaluation that a bundle is, was made from or went into; the newest where there are several."""
    if bundle.kind == KIND:
        return str(bundle.path)
    for _, other in newest_first(workdir_of(bundle.path)):
        if other.kind == KIND and (other.digest == bundle.inputs.get(KIND) or bundle.digest in other.inputs.values()):
            return str(other.path)
    raise BundleError(f"{bundle.path} has no evaluation in its workdir; run `rgsud evaluate` with it first")


def _in_workdir(name: str, workdir: Place) -> Iterator[str]:
    if not is_remote(workdir) and not Path(workdir).is_dir():
        return
    for _, bundle in newest_first(workdir):
        folder = str(bundle.path).rpartition("/")[2]
        if any(text.startswith(name) for text in (folder, folder.partition("-")[2], bundle.digest)):
            yield _evaluation_of(bundle)


def _in_mlflow(name: str, workdir: Place) -> Iterator[str]:
    from rgsud_lib.registry import explained

    with explained(os.environ.get("MLFLOW_TRACKING_URI") or str(workdir)):
        if (opened := mlflow_client(workdir)) is None:
            return
        client, experiment = opened
        token: str | None = None
        while token != "":
            page = client.search_runs([experiment], page_token=token)
            yield from (_evaluated(client, workdir, run) for run in page if run.info.run_id.startswith(name))
            token = page.token or ""


def _evaluated(client: MlflowClient, workdir: Place, run: MlflowRun) -> str:
    """Where the evaluation of a pipeline's or a stage's run lies, as its stage said."""
    from rgsud_lib.tracking import mlflow_store

    parent = client.get_run(run.data.tags.get(mlflow_store.PARENT, run.info.run_id))
    children = mlflow_store.stage_runs(client, workdir, mlflow_store.PARENT, parent.info.run_id)
    earlier = parent.data.tags.get("rgsud.evaluate_run")  # also where another pipeline run did it
    candidates = [*reversed(children), *([client.get_run(earlier)] if earlier else [])]
    for child in candidates:
        tags = child.data.tags
        if tags.get(mlflow_store.STAGE) == "evaluate" and "rgsud.bundle_path" in tags:
            return tags["rgsud.bundle_path"]
    raise BundleError(f"MLflow run {run.info.run_id} ({run.info.run_name}) has no finished evaluation; give another")
