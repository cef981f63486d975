"""`rgsud serve` as a process of its own."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path

# dill, a test tool that is not in the image, writes a file when it is imported (by torch, where it is there).
MAIN = "import sys; sys.modules['dill'] = None; from rgsud_pipelines.cli import main; main()"


class ServingProcess:
    """A service at `address` once it is ready. It may not write a byte into any file."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        command = [sys.executable, "-c", MAIN, "serve", "--port", "0", *arguments]
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "RGSUD_CACHE": "/nonexistent",
            "HOME": "/nonexistent",
        }
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment, preexec_fn=_write_nothing
        )  # fmt: skip
        self.log: list[str] = []
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"at (http://\S+)", line):
                self.address = found[1]
                break
        else:
            raise AssertionError(f"the service ended with {self.process.wait()}: {''.join(self.log)}")
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self.process.wait(120)
        self._reader.join(10)
        return code

    def stop(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        self.process.stderr.close()


def _write_nothing() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
