"""Run a compiled pipeline in containers, in a process of its own: kfp.local keeps its settings for good.

python run_compiled.py JOB.json, with its keys pipeline (file), arguments, environment, labels, root (folder).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from docker.models.containers import ContainerCollection
from kfp import components, local


def main(job: dict[str, Any]) -> None:
    run = ContainerCollection.run

    def keep(self: ContainerCollection, image: str, command: list[str], **options: Any) -> Any:
        # KFP removes a container before it has read its exit code, and takes one that it cannot find for a success;
        # and a task's own environment replaces the runner's.
        environment = {**job["environment"], **(options.pop("environment", None) or {})}
        changed = {"auto_remove": False, "environment": environment, "labels": job["labels"]}
        return run(self, image, command, **{**options, **changed})

    ContainerCollection.run = keep
    os.umask(0)  # the image's user writes where this one made the folders
    Path(job["root"]).mkdir(parents=True, exist_ok=True)
    local.init(local.DockerRunner(network_mode="host"), pipeline_root=job["root"])
    components.load_component_from_file(job["pipeline"])(**job["arguments"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
