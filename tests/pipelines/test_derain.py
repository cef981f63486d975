"""The deraining pipeline on this machine, by kfp.local: twice, the second time with nothing to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

RUN = """
import sys, warnings
from kfp import local
from rgsud_lib.config import load_config
from rgsud_pipelines.derain import derain_pipeline
warnings.simplefilter("ignore")
local.init(local.SubprocessRunner(use_venv=False), "kfp")
config = load_config("demo", ["fan_out.images=4", f"fan_out.failures={sys.argv[2]}"])
derain_pipeline("local")(config=config.model_dump_json(), rainy="rainy", derained="derained", model=sys.argv[1])
"""


def run(folder: Path, model: Path, failures: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, str(model), str(failures)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_shards_derain_and_too_many_failures_fail_the_run(mini_run, tmp_path: Path) -> None:
    rainy = Path(shutil.copytree(mini_run.dataset.parent / "rainy", tmp_path / "rainy"))
    (rainy / "broken.png").write_bytes(b"no picture")
    first = run(tmp_path, mini_run.reinforced, 0.2)
    assert first.returncode == 0, first.stdout + first.stderr
    names = {path.name for path in (tmp_path / "derained").iterdir()}
    assert names == {*(f"{index}.png" for index in range(7)), ".rgsud", "derained.json"}
    assert json.loads((tmp_path / "derained" / "derained.json").read_text())["done"] == 7
    assert {path.name for path in (tmp_path / "derained/.rgsud/shards").iterdir()} == {"0-of-2.json", "1-of-2.json"}
    assert run(tmp_path, mini_run.reinforced, 0.0).returncode != 0
    summary = json.loads((tmp_path / "derained" / "derained.json").read_text())
    assert (summary["done"], summary["skipped"], list(summary["failed"])) == (0, 7, ["broken.png"])
