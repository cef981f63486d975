"""Recurring runs: when, of which version, never two at a time, and missed ones are not caught up on."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from kfp_server_api import (
    RecurringRunMode,
    V2beta1CronSchedule,
    V2beta1PeriodicSchedule,
    V2beta1RecurringRun,
    V2beta1Trigger,
)

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.cluster.kfp_session import Client, KubeflowError
from rgsud_pipelines.cluster.submit import named

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIELDS = {
    "second": (0, 59, ()),
    "minute": (0, 59, ()),
    "hour": (0, 23, ()),
    "day of month": (1, 31, ()),
    "month": (1, 12, MONTHS),
    "day of week": (0, 6, DAYS),
}
UNITS = {"d": 86400, "h": 3600, "m": 60}


def trigger(cron: str | None, every: str | None) -> V2beta1Trigger:
    """When to run: cron (5 or 6 fields, UTC) or an interval such as 6h, 1d or 1h30m. Raises ConfigError."""
    if (cron is None) == (every is None):
        raise ConfigError("say when: either --cron '0 3 * * *' (each night at three) or --every 6h")
    if cron is not None:
        return V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=six_fields(cron)))
    # int64 is a string in JSON, so the API's models have it as one.
    return V2beta1Trigger(periodic_schedule=V2beta1PeriodicSchedule(interval_second=str(seconds(every))))


def six_fields(cron: str) -> str:
    """Kubeflow's cron, which begins with seconds, of the usual five fields or six. Raises ConfigError."""
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise ConfigError(
            f"--cron {cron!r} has {len(fields)} fields; expected five (minute, hour, day, month, weekday) or six "
            "(seconds first), for example '0 3 * * *'"
        )
    for text, name in zip(fields, FIELDS, strict=True):
        if not all(_fits(part, name) for part in text.split(",")):
            low, high, names = FIELDS[name]
            allowed = f"{low}-{high}" + (f" or {names[0]}-{names[-1]}" if names else "")
            hint = "; Sunday is 0" if text == "7" and names is DAYS else ""
            raise ConfigError(f"--cron {cron!r}: {name} is {text!r}; expected *, {allowed}, a list or */step{hint}")
    return " ".join(fields)


def seconds(interval: str) -> int:
    """Length of an interval such as 90m, 6h or 1d12h. Raises ConfigError."""
    if not re.fullmatch(r"(\d+d)?(\d+h)?(\d+m)?", interval) or not (
        total := sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)(\w)", interval))
    ):
        raise ConfigError(f"--every {interval!r}: expected days, hours and minutes, for example 6h, 1d or 1h30m")
    return total


def add(client: Client, job: dict[str, Any], when: V2beta1Trigger, replace: bool = False) -> V2beta1RecurringRun:
    """Run `job` from now on. Raises KubeflowError: there is a schedule of that name and `replace` is not set."""
    older = schedules(client, job["display_name"])
    if older and not replace:
        raise KubeflowError(
            f"there is a schedule {job['display_name']!r} already ({describe(older[0])}); "
            "add --replace, or choose another --name"
        )
    created = client.recurring_runs.recurring_run_service_create_recurring_run(
        recurring_run=V2beta1RecurringRun(
            **job, trigger=when, mode=RecurringRunMode.ENABLE, max_concurrency="1", no_catchup=True
        )
    )
    for item in older:
        client.delete_recurring_run(item.recurring_run_id)
    return created


def remove(client: Client, name: str, delete: bool = False) -> None:
    """Stop a schedule: it stays and can be enabled again on the page, or is deleted. Raises KubeflowError: no such."""
    found = schedules(client, name)
    if not found:
        known = ", ".join(item.display_name for item in schedules(client)) or "none"
        raise KubeflowError(f"no schedule is called {name!r}; there are: {known}")
    for item in found:
        (client.delete_recurring_run if delete else client.disable_recurring_run)(item.recurring_run_id)


def schedules(client: Client, name: str | None = None) -> list[V2beta1RecurringRun]:
    """All schedules of the namespace, or those of one name."""
    found: list[V2beta1RecurringRun] = []
    token = ""
    while True:
        page = client.list_recurring_runs(
            page_token=token,
            page_size=100,
            namespace=client.get_user_namespace(),
            filter=named(name) if name else None,
        )
        # The server's filter does not tell upper case from lower.
        found += [item for item in page.recurring_runs or [] if name in (None, item.display_name)]
        token = page.next_page_token
        if not token:
            return found


def describe(item: V2beta1RecurringRun) -> str:
    """For example `cron 0 0 3 * * *, enabled`."""
    when = item.trigger or V2beta1Trigger()
    if when.cron_schedule:
        text = f"cron {when.cron_schedule.cron}"
    else:
        every = when.periodic_schedule and timedelta(seconds=int(when.periodic_schedule.interval_second))
        text = f"every {every}" if every else "no trigger"
    return f"{text}, {(item.status or item.mode or 'unknown').lower()}"


def _fits(part: str, field: str) -> bool:
    low, high, names = FIELDS[field]
    match = re.fullmatch(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part)
    if match is None:
        return False
    numbers = [_number(text, names, low) for text in match.groups()[:2] if text is not None]
    return all(number is not None and low <= number <= high for number in numbers) and numbers == sorted(numbers)


def _number(text: str, names: tuple[str, ...], first: int) -> int | None:
    if text.upper() in names:
        return names.index(text.upper()) + first
    return int(text) if text.isdigit() else None
