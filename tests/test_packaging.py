"""What is installed, what is pinned, and that the two agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"rgsud_lib": "rgsud_lib", "components": "rgsud_components", "pipelines": "rgsud_pipelines"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_is_listed() -> None:
    found = set()
    for folder, name in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(ROOT / folder).parts)))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


@pytest.mark.slow
def test_the_wheel_has_our_names_only_and_all_that_is_read_at_run_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = [*FOLDERS, "pyproject.toml", "README.md"]
    tracked = subprocess.run(["git", "ls-files", *names], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("rgsud-*.whl"))) as wheel:
        files = set(wheel.namelist())
    assert {file.split("/")[0] for file in files if "dist-info" not in file} == set(FOLDERS.values())
    for name in tracked.split():
        folder, _, rest = name.partition("/")
        if folder in FOLDERS:
            assert f"{FOLDERS[folder]}/{rest}" in files, f"{name} is not in the wheel"


def pins(lock: str) -> dict[str, set[str]]:
    """Each package's versions in a lock (more than one where platforms differ)."""
    found: dict[str, set[str]] = {}
    for name, pin in re.findall(r"^([A-Za-z0-9_.-]+)(?:\[.*?\])?==([^ ;\\]+)", (ROOT / lock).read_text(), flags=re.M):
        found.setdefault(normal(name), set()).add(pin)
    return found


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_has_hashes_and_no_address(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert not re.search(r"https?://|--index-url|--find-links|--extra-index", lock)
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock.strip())
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.\[\],-]+==\S+", entry) and "--hash=sha256:" in entry, entry[:80]


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    from packaging.requirements import Requirement

    def inputs(name: str) -> list[str]:
        return re.findall(r"^[A-Za-z][^#\n]*", (ROOT / name).read_text(), flags=re.M)

    product = (*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], *inputs("requirements.in"))
    extras = PROJECT["project"]["optional-dependencies"]["pyiqa"]
    wanted = {"requirements.lock": product, "requirements-dev.lock": (*extras, *inputs("requirements-dev.in"))}
    for lock, lines in wanted.items():
        for requirement in map(Requirement, lines):
            found = pins(lock)[normal(requirement.name)]
            assert all(requirement.specifier.contains(pin) for pin in found), (lock, str(requirement))


def test_both_locks_agree_and_the_image_gets_no_test_tool_and_nothing_non_commercial() -> None:
    image, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: (image[name], dev[name]) for name in set(image) & set(dev) if image[name] != dev[name]} == {}
    assert not {"pyiqa", "pytest", "moto", "hypothesis", "ruff", "uv"} & set(image)


NEED_MLFLOW = [
    f"rgsud_lib.tracking.{name}" for name in ("delivery", "mlflow_runs", "mlflow_store", "sender", "system_metrics")
]


def test_the_core_imports_without_the_platform() -> None:
    """Training must run on a bare GPU machine: no mlflow, kfp, boto3, cv2, matplotlib or scikit-image at import."""
    code = (
        "import importlib, pkgutil, sys, rgsud_lib\n"
        f"needy = {NEED_MLFLOW}\n"
        "banned = {'mlflow', 'kfp', 'boto3', 'cv2', 'matplotlib', 'skimage', 'onnx', 'onnxruntime', 'pyiqa'}\n"
        "for found in pkgutil.walk_packages(rgsud_lib.__path__, 'rgsud_lib.'):\n"
        "    if found.name not in needy: importlib.import_module(found.name)\n"
        "sys.exit(' '.join(sorted(banned & set(sys.modules))) or 0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_makefile_installs_the_uv_that_is_pinned() -> None:
    (pinned,) = pins("requirements-dev.lock")["uv"]
    for file in ("Makefile", "Dockerfile"):
        assert pinned in (ROOT / file).read_text(), file
