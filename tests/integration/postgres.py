"""A real PostgreSQL on the loopback interface: Debian's package postgresql, a cluster of our own in a folder.

Its server refuses to be root, so a root user starts it as nobody.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ceph import free_port

PASSWORD = "rgsud-test"
USER = "nobody"


class PostgresServer:
    """A database `mlflow` at `address`, in SQLAlchemy's words."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{self.port}/mlflow"
        self._user = USER if getpass.getuser() == "root" else None
        self.folder = Path(tempfile.mkdtemp(prefix="rgsud-postgres-", dir="/tmp"))  # pytest's are closed to others

    def start(self) -> None:
        """Make the cluster and the database, and wait until it answers."""
        password, data = self.folder / "password", self.folder / "data"
        password.write_text(PASSWORD)
        if self._user:
            shutil.chown(self.folder, self._user)
            shutil.chown(password, self._user)
        access = ("-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={password}")
        self._run("initdb", "-D", str(data), *access, "-E", "UTF8", "--no-sync")
        options = f"-h 127.0.0.1 -p {self.port} -k '' -F"
        self._run("pg_ctl", "-D", str(data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    def stop(self) -> None:
        """End it; its data go with it."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [_find(program), *arguments]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(
            command, user=self._user, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stderr}"


def _find(program: str) -> str:
    """Debian keeps the server's programs of each version in a folder of their own."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    assert found, f"{program} is missing: apt-get install postgresql"
    return str(found[-1])
