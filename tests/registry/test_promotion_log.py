"""Two promotions at once, a killed promoter, a slow one: the champion is always what the records say."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rgsud_lib.errors import RegistryError
from rgsud_lib.registry import NAME, Registry, promotion_log
from rgsud_lib.registry.promotion_log import promote, records, rollback, rolled_back, settle


@pytest.fixture
def registry(workdir: Path) -> Registry:
    """Five versions, none of them champion."""
    opened = Registry.open(workdir)
    opened.ensure(NAME, "")
    for _ in range(5):
        opened.client.create_model_version(NAME, "s3://nowhere/model")
    return opened


def test_only_one_of_several_promotions_at_once_counts(registry: Registry, workdir: Path, monkeypatch) -> None:
    """All have read the same state before any of them writes."""
    promote(registry, "5", "none", "first")
    registries = [Registry.open(workdir) for _ in range(4)]
    everybody, results = threading.Barrier(4), []
    original = Registry.aliases

    def aliases(self: Registry) -> dict[str, str]:
        found = original(self)
        if threading.current_thread().name.startswith("promoter") and not hasattr(threading.current_thread(), "read"):
            threading.current_thread().read = True  # type: ignore[attr-defined]
            everybody.wait(60)
        return found

    def attempt(opened: Registry, version: str) -> None:
        try:
            promote(opened, version, "5", f"version {version}")
            results.append((version, "won"))
        except RegistryError as error:
            results.append((version, str(error)))

    monkeypatch.setattr(Registry, "aliases", aliases)
    threads = [
        threading.Thread(target=attempt, args=(opened, str(number)), name=f"promoter {number}")
        for number, opened in enumerate(registries, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    won = [version for version, result in results if result == "won"]
    assert len(results) == 4 and len(won) == 1, results
    refusals = ("another promotion was recorded", "compare again")  # noticed while writing, or before
    assert all(result == "won" or any(reason in result for reason in refusals) for _, result in results), results
    assert original(registry) == {"champion": won[0], "previous": "5"}
    assert [record.tags["rgsud.promoted_version"] for record in records(registry)] == [won[0], "5"]
    promote(registry, "2" if won[0] == "1" else "1", won[0], "afterwards: void records are no obstacle")


def test_what_a_killed_promoter_began_is_finished_before_anything_else(registry: Registry, monkeypatch) -> None:
    promote(registry, "1", "none", "first")
    with monkeypatch.context() as patched:
        patched.setattr(promotion_log, "_apply", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote(registry, "2", "1", "killed after its record")
    assert registry.aliases()["champion"] == "1"
    with pytest.raises(RegistryError, match="compared with champion 1, but the champion is 2 by now"):
        promote(registry, "3", "1", "compared before")
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    promote(registry, "2", "1", "the killed task's retry")
    assert len(records(registry)) == 2


def test_a_slow_writer_puts_right_what_it_overwrote(registry: Registry, workdir: Path, monkeypatch) -> None:
    other, original, calls = Registry.open(workdir), promotion_log._apply, []

    def apply(opened: Registry, record) -> None:
        calls.append(record.version)
        if len(calls) == 1:  # asleep; meanwhile another process finishes this promotion and makes the next one
            settle(other)
            promote(other, "2", "1", "meanwhile")
            assert other.aliases()["champion"] == "2"
        original(opened, record)

    monkeypatch.setattr(promotion_log, "_apply", apply)
    promote(registry, "1", "none", "slow")
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert [int(call) for call in calls] == [1, 1, 2, 2]


def test_rollback_swaps_and_each_step_is_a_record(registry: Registry) -> None:
    promote(registry, "1", "none", "a")
    promote(registry, "2", "1", "b", {"rgsud.gate_run_id": "run"})
    assert rollback(registry, "c") == "1"
    assert rollback(registry, "d") == "2"
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    log = [(record.tags["rgsud.replaces"], record.tags["rgsud.promoted_version"], record.description)
           for record in records(registry)]  # fmt: skip
    assert log == [("1", "2", "d"), ("2", "1", "c"), ("1", "2", "b"), ("none", "1", "a")]
    assert "rgsud.rollback" not in registry.find("2").tags


def test_who_rolled_a_version_back_is_known_until_it_is_promoted_again(registry: Registry) -> None:
    promote(registry, "1", "none", "a")
    promote(registry, "2", "1", "b")
    assert rolled_back(registry, "1") == rolled_back(registry, "2") == "", "replaced by a better one"
    rollback(registry, "c")
    promote(registry, "3", "1", "d")
    assert "(c): promote it by hand" in rolled_back(registry, "2") and rolled_back(registry, "1") == ""
    promote(registry, "2", "3", "e")
    promote(registry, "3", "2", "f")
    assert rolled_back(registry, "2") == ""


def test_a_champion_set_by_hand_is_respected(registry: Registry) -> None:
    promote(registry, "1", "none", "a")
    registry.client.set_registered_model_alias(NAME, "champion", "4")
    settle(registry)
    assert registry.aliases()["champion"] == "4"
    promote(registry, "2", "4", "compared with what serves")
    assert registry.aliases() == {"champion": "2", "previous": "4"}


def test_unknown_versions_and_an_empty_registry(workdir: Path, registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no version '9' at sqlite.*there are 5, 4, 3, 2, 1"):
        promote(registry, "9", "none", "?")
    registry.client.delete_registered_model(NAME)
    with pytest.raises(RegistryError, match="nothing was registered there yet"):
        registry.find("champion")
    assert registry.aliases() == {} and registry.versions() == []


def test_two_processes_that_register_one_bundle_make_one_version(registry: Registry, monkeypatch, tmp_path) -> None:
    """Both look, find nothing, and create; the later one takes its version back."""
    run = registry.client.create_run(registry.experiment).info.run_id
    model = registry.client.create_logged_model(registry.experiment, "m", run).model_id
    first = registry.register("digest", model, {}, "card")
    with monkeypatch.context() as patched:
        original, looks = Registry.registered, []

        def registered(self: Registry, digest: str):
            looks.append(digest)
            return None if len(looks) == 1 else original(self, digest)

        patched.setattr(Registry, "registered", registered)
        second = registry.register("digest", model, {}, "card")
    assert first.version == second.version
    assert [int(version.version) for version in registry.versions()] == [6, 5, 4, 3, 2, 1]
