"""Kubeflow's published API as data, read off `kfp_server_api` by reflection: its routes, and what fits its models."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import kfp_server_api

PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float)}


class Misfit(Exception):
    """A request or an answer that the published API does not know."""


@dataclass(frozen=True)
class Route:
    """One operation, such as run_service_get_run."""

    operation: str
    verb: str
    path: re.Pattern[str]
    query: frozenset[str]
    body: str | None  # type
    upload: bool
    answer: str  # type


def routes() -> list[Route]:
    """All operations of all services."""
    services = [getattr(kfp_server_api, name) for name in dir(kfp_server_api) if name.endswith("ServiceApi")]
    return [
        _route(name.removesuffix("_with_http_info"), inspect.getsource(method))
        for service in services
        for name, method in vars(service).items()
        if name.endswith("_with_http_info")
    ]


def _route(operation: str, source: str) -> Route:
    path, verb = re.search(r"call_api\(\s*'([^']+)', '([A-Z]+)'", source).groups()
    body = re.search(r"body_params = local_var_params\['(\w+)'\]", source)
    return Route(
        operation,
        verb,
        re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/:]+)", re.escape(path))),
        frozenset(re.findall(r"query_params\.append\(\('(\w+)'", source)),
        re.search(rf":type {body[1]}: (\S+)", source)[1] if body else None,
        "local_var_files['uploadfile']" in source,
        re.search(r"response_type='([^']+)'", source)[1],
    )


def check(value: Any, kind: str, where: str = "body", sent: bool = True) -> None:
    """Raise Misfit unless `value` is of the API's type `kind`; what is `sent` must have the required fields."""
    if kind == "object":
        return
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (kind != "bool" and isinstance(value, bool)):
            raise Misfit(f"{where}: {value!r} is no {kind}")
    elif kind == "datetime":
        datetime.fromisoformat(value)
    elif match := re.fullmatch(r"list\[(.+)\]", kind):
        for index, item in enumerate(value):
            check(item, match[1], f"{where}[{index}]", sent)
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        for key, item in value.items():
            check(item, match[1], f"{where}.{key}", sent)
    else:
        _check_model(value, getattr(kfp_server_api, kind), where, sent)


def _check_model(value: Any, model: type, where: str, sent: bool) -> None:
    if allowed := getattr(model, "allowable_values", None):
        if value not in allowed:
            raise Misfit(f"{where}: {value!r} is none of {allowed}")
        return
    if not isinstance(value, dict):
        raise Misfit(f"{where}: {value!r} is no {model.__name__}")
    attributes = {model.attribute_map[name]: name for name in model.openapi_types}
    if unknown := sorted(set(value) - set(attributes)):
        raise Misfit(f"{where}: {model.__name__} has no {unknown}")
    for key, name in attributes.items():
        if key in value:
            check(value[key], model.openapi_types[name], f"{where}.{key}", sent)
        elif sent and "Required input" in getattr(model, name).__doc__:
            raise Misfit(f"{where}: {model.__name__} needs {key}")


def matches(record: dict[str, Any], text: str | None) -> bool:
    """Whether a record passes the API's filter, which may be in camelCase and with numbers for the operations.

    The real server does not tell upper case from lower in names either.
    """
    if not text:
        return True
    document = json.loads(
        re.sub(r'"(\w+)":', lambda name: re.sub("[A-Z]", lambda c: f"_{c[0].lower()}", name[0]), text)
    )
    operations = kfp_server_api.V2beta1PredicateOperation.allowable_values
    for predicate in document["predicates"]:
        if isinstance(predicate["operation"], int):
            predicate["operation"] = operations[predicate["operation"]]
    check(document, "V2beta1Filter", "filter")
    for predicate in document["predicates"]:
        if predicate["operation"] != "EQUALS":
            raise Misfit(f"filter: {predicate['operation']} is not needed by anybody yet")
    return all(record.get(item["key"], "").lower() == item["string_value"].lower() for item in document["predicates"])


def _snake_case(name: re.Match[str]) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name[0])
