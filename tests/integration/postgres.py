"""A real PostgreSQL on the loopback interface: Debian's package postgresql, a cluster of our own in a folder.

Its server refuses to be root, so a root user starts it as nobody.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from ceph import free_port

PASSWORD = "rgsud-test"
USER = "nobody"


class PostgresServer:
    """A database `mlflow` at `address`, in SQLAlchemy's words."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{self.port}/mlflow"
        self._user = USER if getpass.getuser() == "root" else None
        self._running = False

    def start(self) -> None:
        """Make the cluster and the database, and wait until it answers."""
        if self._user:
            shutil.chown(self.folder, self._user)
            for parent in self.folder.parents:  # pytest's folders are closed to others
                if parent.owner() == "root" and parent.name.startswith("pytest-"):
                    os.chmod(parent, 0o755)
        password, data = self.folder / "password", self.folder / "data"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        access = ("-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={password}")
        self._run("initdb", "-D", str(data), *access, "-E", "UTF8", "--no-sync")
        options = f"-h 127.0.0.1 -p {self.port} -k '' -F"
        self._run("pg_ctl", "-D", str(data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")
        self._running = True
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    def stop(self) -> None:
        if self._running:
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

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
