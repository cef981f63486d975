"""Schedules: when, which version, one at a time, and how they end."""

from __future__ import annotations

import pytest

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.cluster.kfp_session import KubeflowError
from rgsud_pipelines.cluster.schedule import seconds, six_fields

from .conftest import SOURCES


def test_one_at_a_time_and_nothing_is_caught_up_on(stub, rgsud) -> None:
    result = rgsud("schedule", *SOURCES, "--cron", "0 3 * * *")
    assert result.exit_code == 0 and result.stdout.endswith("rgsud-training: cron 0 0 3 * * *, enabled\n")
    (sent,) = stub.sent("recurring_run_service_create_recurring_run")
    assert (sent["max_concurrency"], sent["no_catchup"], sent["mode"]) == ("1", True, "ENABLE")
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert sent["runtime_config"]["parameters"]["rainy"] == "s3://photos/rain"


def test_this_codes_version_is_uploaded_and_pinned(stub, rgsud) -> None:
    assert rgsud("schedule", *SOURCES, "--every", "6h").exit_code == 0
    (version,) = stub.tables["pipeline_version"]
    (sent,) = stub.sent("recurring_run_service_create_recurring_run")
    assert sent["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert sent["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}
    assert rgsud("runs").stdout.splitlines()[-1].endswith(version["display_name"])
    version_id = stub.tables["pipeline_version"].pop()["pipeline_version_id"]
    assert rgsud("runs").stdout.splitlines()[-1].endswith(f"{version_id} (deleted)")


def test_latest_pins_nothing(stub, rgsud) -> None:
    rgsud("upload")
    assert rgsud("schedule", *SOURCES, "--every", "6h", "--version", "latest").exit_code == 0
    (sent,) = stub.sent("recurring_run_service_create_recurring_run")
    assert sent["pipeline_version_reference"] == {"pipeline_id": stub.tables["pipeline"][0]["pipeline_id"]}
    assert "rgsud-training  every 6:00:00, enabled  latest" in rgsud("runs").stdout


def test_without_cache_the_pipeline_is_sent_along_and_latest_stays_cached(stub, rgsud) -> None:
    assert rgsud("schedule", *SOURCES, "--every", "6h", "--no-cache").exit_code == 0
    (sent,) = stub.sent("recurring_run_service_create_recurring_run")
    assert "'enableCache': True" not in str(sent["pipeline_spec"]) and "pipeline_version" not in stub.tables
    assert rgsud("runs").stdout.splitlines()[-1].endswith("inline")


def test_a_second_schedule_of_a_name_replaces_only_when_asked(stub, rgsud) -> None:
    rgsud("schedule", *SOURCES, "--every", "6h")
    again = rgsud("schedule", *SOURCES, "--every", "1d")
    assert isinstance(again.exception, KubeflowError) and "every 6:00:00, enabled" in str(again.exception)
    assert rgsud("schedule", *SOURCES, "--every", "1d", "--replace").exit_code == 0
    (left,) = stub.tables["recurring_run"]
    assert left["trigger"]["periodic_schedule"]["interval_second"] == "86400"


def test_unschedule_disables_or_deletes(stub, rgsud) -> None:
    rgsud("schedule", *SOURCES, "--every", "6h", "--name", "nightly")
    assert rgsud("unschedule", "nightly").stdout == "nightly: disabled\n"
    assert stub.tables["recurring_run"][0]["status"] == "DISABLED"
    assert rgsud("unschedule", "nightly", "--delete").stdout == "nightly: deleted\n"
    assert stub.tables["recurring_run"] == []
    assert "no schedule is called 'nightly'; there are: none" in str(rgsud("unschedule", "nightly").exception)


def test_a_name_in_other_letters_is_another_schedule(stub, rgsud) -> None:
    for name in ("Nightly", "nightly"):
        assert rgsud("schedule", *SOURCES, "--every", "6h", "--name", name).exit_code == 0
    rgsud("unschedule", "nightly", "--delete")
    assert [item["display_name"] for item in stub.tables["recurring_run"]] == ["Nightly"]


def test_more_schedules_than_a_page_holds(stub, rgsud) -> None:
    rgsud("schedule", *SOURCES, "--every", "6h", "--name", "last")
    (one,) = stub.tables["recurring_run"]
    copies = [{**one, "recurring_run_id": f"copy-{i}", "display_name": f"copy-{i}"} for i in range(101)]
    stub.tables["recurring_run"][:0] = copies
    assert "\nlast " in rgsud("runs").stdout


def test_nothing_is_sent_without_a_time(stub, rgsud) -> None:
    for when in ((), ("--cron", "0 3 * * *", "--every", "6h"), ("--cron", "0 25 * * *"), ("--every", "soon")):
        assert isinstance(rgsud("schedule", *SOURCES, *when).exception, ConfigError)
    assert stub.requests == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 9-17 * * MON-FRI", "0 */15 9-17 * * MON-FRI"),
        ("30 0 3 1,15 jan,JUL ?", "30 0 3 1,15 jan,JUL ?"),
        ("0 0 9 ? * 2-6", "0 0 9 ? * 2-6"),
    ],
)
def test_five_fields_get_seconds(given, expected) -> None:
    assert six_fields(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("* * *", "has 3 fields; expected five"),
        ("@daily", "has 1 fields"),
        ("60 3 * * *", "minute is '60'; expected \\*, 0-59"),
        ("0 3 * * 7", "day of week is '7'; expected \\*, 0-6 or SUN-SAT, a list or \\*/step; Sunday is 0"),
        ("0 3 0 * *", "day of month is '0'"),
        ("0 3 * 13 *", "month is '13'; expected \\*, 1-12 or JAN-DEC"),
        ("0 9-3 * * *", "hour is '9-3'"),
        ("*/0 3 * * *", "minute is '\\*/0'"),
        ("0 3 * * MONDAY", "day of week is 'MONDAY'"),
        ("0,, 3 * * *", "minute is '0,,'"),
    ],
)
def test_a_cron_that_kubeflow_would_not_take(given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        six_fields(given)


def test_intervals() -> None:
    assert [seconds(text) for text in ("90m", "6h", "1d12h", "1h30m")] == [5400, 21600, 129600, 5400]
    for text in ("", "6", "0h", "6 h", "-1h", "30s", "1m1h"):
        with pytest.raises(ConfigError, match="expected days, hours and minutes"):
            seconds(text)
