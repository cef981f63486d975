"""Where a lineage's bundles are looked for: the workdirs that were named, then those that MLflow remembers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from rgsud_lib.bundle import Bundle
from rgsud_lib.errors import RgsudError
from rgsud_lib.lineage import Name, Place, known, name_of, read, workdir_of
from rgsud_lib.lineage.memory import Memory, Version
from rgsud_lib.storage.listing import canonical


class Shelf:
    """Bundles by kind and digest. `gone`: those of which MLflow knows, but which are no more where it says.

    `notes` say what could not be looked at.
    """

    def __init__(self, workdirs: Iterable[Place]) -> None:
        self.workdirs = [canonical(workdir) for workdir in workdirs]
        self.bundles: dict[Name, Bundle] = {}
        self.gone: set[Name] = set()
        self.notes: list[str] = []
        self._read: set[str] = set()
        for workdir in self.workdirs:
            self.add(workdir)
        self.memory = self._open_memory()

    def add(self, workdir: Place) -> None:
        """Look into one more workdir."""
        if str(workdir) in self._read:
            return
        self._read.add(str(workdir))
        try:
            self.bundles = known([workdir]) | self.bundles
        except RgsudError as error:
            self.notes.append(f"{workdir} was not looked into: {error}")

    def get(self, name: Name) -> Bundle | None:
        """A bundle, be it gone; None where nothing but its digest is known."""
        if name not in self.bundles and name not in self.gone and self.memory:
            self._remember(self.memory, name)
        return self.bundles.get(name)

    def put(self, bundle: Bundle) -> Name:
        """Add one that lies in no workdir."""
        self.bundles.setdefault(name_of(bundle), bundle)
        return name_of(bundle)

    def versions(self) -> dict[Name, Version]:
        """The registry's versions by name; their exports are looked for, or remembered from the version's tags."""
        try:
            found = self.memory.versions() if self.memory else []
        except RgsudError as error:
            self._forget(error)
            found = []
        for version in found:
            if self.get(version.export) is None:
                self.gone.add(self.put(Bundle("", *version.export, "", version.inputs)))
        return {("version", version.number): version for version in found}

    def _open_memory(self) -> Memory | None:
        """That of the first workdir which has one."""
        reason: RgsudError | None = None
        for workdir in self.workdirs:
            try:
                return Memory.open(workdir)
            except RgsudError as error:
                reason = reason or error
        self.notes.append(f"no versions of the registry: {reason}")
        return None

    def _remember(self, memory: Memory, name: Name) -> None:
        try:
            told = memory.bundle(name)
        except RgsudError as error:
            self._forget(error)
            return
        if told is None:
            return
        with contextlib.suppress(RgsudError, OSError):  # it is gone
            self.put(read(told.path))
        self.add(workdir_of(told.path))
        if name not in self.bundles:
            self.bundles[name] = told
            self.gone.add(name)

    def _forget(self, error: RgsudError) -> None:
        self.notes.append(f"MLflow is not asked any more: {error}")
        self.memory = None
