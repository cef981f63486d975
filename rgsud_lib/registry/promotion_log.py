"""Moving the champion: numbered records that say who, when, why and instead of what, and aliases that follow them.

MLflow cannot compare and set an alias. But it numbers a registered model's versions without gaps, one writer a
number, on every backend; so a promotion first becomes a version of `rgsud-promotions`, and it counts only if it got
the number right after the last record its author had seen. `docs/registry.md` says what this does not cover.
"""

from __future__ import annotations

import getpass
import os
import time
from typing import TYPE_CHECKING

from rgsud_lib.errors import RegistryError
from rgsud_lib.registry import CHALLENGER, CHAMPION, NAME, PREVIOUS, Registry, explained

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

LOG = "rgsud-promotions"
ABOUT = f"The record of promotions of `{NAME}`: one version each, who, when, why, instead of what. Do not edit."
AFTER, DONE = "rgsud.after", "rgsud.done"
VERSION, REPLACES, ROLLBACK = "rgsud.promoted_version", "rgsud.replaces", "rgsud.rollback"
NONE = "none"  # the champion where there is none


def promote(registry: Registry, version: str, expected: str, why: str, details: dict[str, str] | None = None) -> None:
    """Make `version` the champion in place of `expected` ("none": there was none), which becomes `previous`.

    A promotion that was done already changes nothing. `details` (metrics, the gate's run) join the record's tags.
    Raises RegistryError: no such version, the champion is not the expected one, another promotion came first.
    """
    registry.find(version)
    registry.ensure(LOG, ABOUT)
    last = settle(registry)
    champion = registry.aliases().get(CHAMPION, NONE)
    if champion == version:
        return
    if champion != expected:
        raise RegistryError(
            f"version {version} was compared with champion {expected}, but the champion is {champion} by now; "
            "compare again: the same command repeats the gate only"
        )
    tags = {AFTER: str(last), VERSION: version, REPLACES: expected, **(details or {}), **_audit(why)}
    with explained(registry.address):
        record = registry.client.create_model_version(LOG, f"models:/{NAME}/{version}", tags=tags, description=why)
    if int(record.version) != last + 1:
        raise RegistryError(
            f"another promotion was recorded while version {version} was being promoted, which is not done; "
            "compare again: the same command repeats the gate only"
        )
    settle(registry)


def rollback(registry: Registry, why: str) -> str:
    """Make `previous` the champion again, the champion `previous`; returns its version. Raises RegistryError.

    No gate makes the replaced version the champion again, see `rolled_back`.
    """
    settle(registry)
    aliases = registry.aliases()
    if PREVIOUS not in aliases:
        raise RegistryError(f"{NAME} has no version with the alias {PREVIOUS!r}: nothing was replaced yet")
    promote(registry, aliases[PREVIOUS], aliases.get(CHAMPION, NONE), why, {ROLLBACK: "true"})
    return aliases[PREVIOUS]


def rolled_back(registry: Registry, version: str) -> str:
    """Who took `version` back through `rollback`, when and why; empty where nobody did, or it was promoted since."""
    for record in records(registry):
        tags = record.tags
        if tags[VERSION] == version:
            return ""
        if tags[REPLACES] == version and ROLLBACK in tags:
            by, when, why = (tags[f"rgsud.promoted_{name}"] for name in ("by", "at", "why"))
            return f"was rolled back by {by} on {when} ({why}): promote it by hand (`rgsud registry promote {version}`)"
    return ""


def settle(registry: Registry) -> int:
    """Make the aliases follow the newest valid record: finish what a process that was killed had begun.

    Returns the number of the last record, valid or not, before which all is done. A writer that is slow may overwrite
    a newer promotion's aliases; it looks again after it wrote, and puts them right.
    """
    written = None
    while True:
        log = registry.versions(LOG)
        newest = next(filter(_counts, log), None)
        if newest is None or newest.version == written or (written is None and DONE in newest.tags):
            return int(log[0].version) if log else 0
        _apply(registry, newest)
        written = newest.version


def records(registry: Registry) -> list[ModelVersion]:
    """The promotions that counted, newest first."""
    return list(filter(_counts, registry.versions(LOG)))


def _counts(record: ModelVersion) -> bool:
    """Whether nobody else's record came between what its author had seen and itself."""
    return int(record.version) == int(record.tags.get(AFTER, -1)) + 1


def _apply(registry: Registry, record: ModelVersion) -> None:
    version, replaced, client = record.tags[VERSION], record.tags[REPLACES], registry.client
    shown = {name: value for name, value in record.tags.items() if name not in (AFTER, DONE, VERSION, ROLLBACK)}
    registry.set_tags(version, shown | {"rgsud.promotion": str(record.version)})
    with explained(registry.address):
        if replaced != NONE:
            client.set_registered_model_alias(NAME, PREVIOUS, replaced)
        client.set_registered_model_alias(NAME, CHAMPION, version)
        if registry.aliases().get(CHALLENGER) == version:
            client.delete_registered_model_alias(NAME, CHALLENGER)
        client.set_model_version_tag(LOG, record.version, DONE, "true")


def _audit(why: str) -> dict[str, str]:
    by = os.environ.get("RGSUD_USER") or os.environ.get("KFP_RUN_ID") or getpass.getuser()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"rgsud.promoted_by": by, "rgsud.promoted_at": now, "rgsud.promoted_why": why}
