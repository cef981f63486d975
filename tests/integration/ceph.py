"""A real S3 server on the loopback interface: Ceph's gateway over one monitor and one storage daemon in memory.

Debian's packages ceph-mon, ceph-osd, radosgw and ceph-common. Unlike a mock it checks signatures, and can be killed
and started again with its objects kept.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "rgsud-test-key", "rgsud-test-secret"

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}/0]
public addr = 127.0.0.1
ms bind msgr1 = false
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
run dir = {folder}
log file = {folder}/$name.log
admin socket =
pid file =
paxos propose interval = 0.02
mon allow pool size one = true
mon data avail crit = 1
mon osd full ratio = .99
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd objectstore = memstore
osd max object name len = 256
memstore device bytes = 4294967296
rgw dns name = localhost
rgw frontends = beast endpoint=127.0.0.1:{port}
"""
KEYRING = """
[mon.]
key = {key}
caps mon = "allow *"
[client.admin]
key = {key}
caps mon = "allow *"
caps osd = "allow *"
[osd.0]
key = {key}
caps mon = "allow profile osd"
caps osd = "allow *"
"""


class S3Server:
    """The gateway at `endpoint`, its two daemons and its one user; `folder` holds configuration and logs."""

    access_key, secret_key = ACCESS_KEY, SECRET_KEY

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._gateway: subprocess.Popen[bytes] | None = None

    def bring_up(self) -> None:
        """Format and start everything; about ten seconds."""
        fsid, osd, monitor = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        settings = CONFIGURATION.format(folder=self.folder, fsid=fsid, monitor=monitor, port=self.port)
        (self.folder / "ceph.conf").write_text(settings)
        key = self._run("ceph-authtool", "--gen-print-key").strip()
        (self.folder / "keyring").write_text(KEYRING.format(key=key))
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        map_file = str(self.folder / "monmap")
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor}/0]", map_file)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", map_file)
        self._daemons.append(self._spawn("ceph-mon", "-f", "-i", "a"))
        self._run("ceph", "--connect-timeout", "60", "osd", "new", osd)
        self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self._daemons.append(self._spawn("ceph-osd", "-f", "-i", "0"))
        self.start()
        user = ("--uid", "test", "--display-name", "test", "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        self._run("radosgw-admin", "user", "create", *user)

    def start(self) -> None:
        """Start the gateway and wait until it answers; its objects are those of before a `stop`."""
        self._gateway = self._spawn("radosgw", "-f", "-n", "client.admin")
        wait_for_http(self.endpoint, self._gateway)

    def stop(self) -> None:
        """kill -9 the gateway: open transfers break, the port refuses."""
        assert self._gateway is not None
        self._gateway.kill()
        self._gateway.wait()

    def shut_down(self) -> None:
        """End all processes; the data go with them."""
        for process in filter(None, (self._gateway, *reversed(self._daemons))):
            process.kill()
            process.wait()

    def environment(self) -> dict[str, str]:
        """How boto3 and MLflow find the server and its user."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
        }

    def _run(self, *command: str) -> str:
        answer = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120)
        assert answer.returncode == 0, f"{' '.join(command)}: {answer.stderr}"
        return answer.stdout

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{command[0]}.out", "ab") as output:
            return subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)


def stop_gently(process: subprocess.Popen[bytes], patience: float = 30) -> None:
    """SIGTERM, and SIGKILL for one that does not listen."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_http(address: str, process: subprocess.Popen[bytes], patience: float = 120) -> None:
    """Return once `address` answers anything; fails when the process ends or patience does."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None, f"{process.args} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{address} does not answer"
            time.sleep(0.1)
