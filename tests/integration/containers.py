"""The real image, built by `make image` on a Docker daemon of our own.

No public registry is needed: the base is a minimal Debian with its own Python, tagged with the public name. Debian's
packages docker.io and debootstrap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from ceph import stop_gently

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "python:3.11-slim", "localhost/rgsud-python:development"  # what Dockerfile and compiled YAML name
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# A loopback-only daemon that leaves the machine's network and firewall alone; containers use the host's.
FLAGS = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")


class Image(NamedTuple):
    """What was built: `size` in bytes, `seconds` of the build without its base."""

    name: str
    size: int
    seconds: float


class DockerDaemon:
    """A daemon of our own, or the one that DOCKER_HOST names, at `address`; `client` is docker-py's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, os.environ.get("DOCKER_HOST") or f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = None

    def start(self) -> None:
        """Start the daemon, unless it is there, and connect to it."""
        import docker

        if self.address == f"unix://{self.folder}/docker.sock":
            self._spawn()
        self.client = docker.DockerClient(self.address, timeout=600)

    def _spawn(self) -> None:
        places = ("--data-root", "data", "--exec-root", "exec", "--pidfile", "docker.pid")
        options = [part if part.startswith("--") else str(self.folder / part) for part in places]
        with open(self.folder / "dockerd.log", "wb") as log:
            command = ["dockerd", "-H", self.address, *options, *FLAGS]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            if (self.folder / "docker.sock").exists():
                break
            assert self._process.poll() is None, (self.folder / "dockerd.log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """End what was started here, with its containers and images."""
        if self.client is not None:
            self.client.close()
        if self._process is not None:
            stop_gently(self._process)
            namespace = self.folder / "exec" / "netns" / "default"  # left mounted: nothing above it could be removed
            subprocess.run(["umount", str(namespace)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str, **options: Any) -> tuple[int, str]:
        """Exit code and output of a command in the image, on the host's network."""
        container = self.client.containers.create(IMAGE, list(command), network_mode="host", **options)
        try:
            container.start()
            code = container.wait()["StatusCode"]
            return code, container.logs().decode(errors="replace")
        finally:
            container.remove(force=True)

    def build(self) -> Image:
        """Base and image."""
        environment = {**os.environ, "DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "0"}
        if not self.client.images.list(BASE):
            self._import_base(environment)
        start = time.monotonic()
        command = ["make", "image", f"IMAGE={IMAGE}", "BUILD_ARGS=--network host"]
        built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
        return Image(IMAGE, self.client.images.get(IMAGE).attrs["Size"], time.monotonic() - start)

    def _import_base(self, environment: dict[str, str]) -> None:
        """A minimal Debian that trusts whom this machine trusts: a package index may sit behind a private authority."""
        tree = self.folder / "base"
        packages = "ca-certificates,python3,python3-venv"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(tree)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        shutil.copy(AUTHORITIES, str(tree) + AUTHORITIES)
        trust = f"ENV SSL_CERT_FILE={AUTHORITIES} PIP_CERT={AUTHORITIES}"
        with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as archive:
            command = ["docker", "import", "--change", trust, "-", BASE]
            subprocess.run(command, check=True, stdin=archive.stdout, env=environment, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
