"""The image that the Dockerfile makes, looked at from outside and from within."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

CACHE = "/var/cache/rgsud"
LARGEST = 9e9  # bytes; PyTorch's CUDA build is most of it


def test_labels_user_and_size(docker_daemon, rgsud_image, capsys) -> None:
    from rgsud_lib import __version__

    image = docker_daemon.client.images.get(rgsud_image.name)
    with capsys.disabled():
        print(f"\nimage: {rgsud_image.size / 1e9:.2f} GB, built in {rgsud_image.seconds:.0f} s")
    assert rgsud_image.size < LARGEST
    assert image.attrs["Config"]["User"] == "10001:10001"
    assert image.attrs["Config"]["Healthcheck"]["Test"] == ["CMD", "rgsud", "doctor"]
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert len(image.labels["org.opencontainers.image.revision"].removesuffix("-dirty")) == 40


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("id -u; id -g", "10001\n10001"),
        ("for tool in gcc cc g++ make pip uv pytest; do command -v $tool; done; echo none", "none"),
        ("python3 -c 'import importlib.util as u; print(u.find_spec(\"pyiqa\"), u.find_spec(\"moto\"))'", "None None"),
        ("find / -xdev -writable -type d 2>/dev/null | sort", "/run/lock\n/tmp\n/var/cache/rgsud\n/var/tmp"),
        ("python3 -c 'import torch, kfp, mlflow, onnxruntime, open_clip, rgsud_lib.serving.server; print(1)'", "1"),
    ],
)  # fmt: skip
def test_within(docker_daemon, rgsud_image, script: str, output: str) -> None:
    assert docker_daemon.run("sh", "-c", script) == (0, f"{output}\n")


def test_the_doctor_on_a_read_only_root(docker_daemon, rgsud_image, mlflow_server, new_bucket) -> None:
    """All that is written goes to the two folders that are mounted."""
    workdir = f"s3://{new_bucket()}/work"
    mounted = {"read_only": True, "tmpfs": {"/tmp": "", CACHE: "uid=10001,gid=10001,size=6g"}}
    command = ("rgsud", "doctor", "--workdir", workdir, "--json")
    code, output = docker_daemon.run(*command, environment=mlflow_server.environment(), **mounted)
    assert code == 0, output
    findings = {found["check"]: found for found in json.loads(output)}
    assert {found["status"] for found in findings.values()} == {"ok"}
    assert {"gpu", "cache", "s3", "mlflow", "mlflow artifacts", "image", "packages"} < set(findings)
    assert workdir in findings["s3"]["message"]


def test_the_doctor_names_what_is_wrong_and_no_secret(docker_daemon, rgsud_image, mlflow_server, new_bucket) -> None:
    environment = {**mlflow_server.environment(), "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    command = ("rgsud", "doctor", "--workdir", f"s3://{new_bucket()}/work")
    code, output = docker_daemon.run(*command, environment=environment)
    assert code == 1
    assert "fail  s3: " in output and "the secret does not match the access key" in output
    assert "fail  mlflow artifacts: cannot be written" in output
    assert "not-the-secret" not in output
