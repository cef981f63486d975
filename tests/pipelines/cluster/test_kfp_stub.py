"""The stub refuses what the published API does not know: else the tests beside this one would prove nothing."""

from __future__ import annotations

import json

import pytest
import urllib3

from .kfp_api import Misfit, check, matches, routes

RUN = {"display_name": "one", "experiment_id": "e", "runtime_config": {"parameters": {"a": 1}}}


def test_the_routes_are_those_of_the_package() -> None:
    found = {route.operation: route for route in routes()}
    assert len(found) > 35
    create = found["run_service_create_run"]
    assert (create.verb, create.body, create.answer, create.query) == ("POST", *["V2beta1Run"] * 2, {"experiment_id"})
    assert create.path.fullmatch("/apis/v2beta1/runs") and not create.path.fullmatch("/apis/v1beta1/runs")
    disable = found["recurring_run_service_disable_recurring_run"]
    assert disable.path.fullmatch("/apis/v2beta1/recurringruns/abc:disable")["recurring_run_id"] == "abc"
    assert found["upload_pipeline_version"].upload


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"job_name": "one"}, r"V2beta1Run has no \['job_name'\]"),
        ({"display_name": 1}, "body.display_name: 1 is no str"),
        ({"state": "DONE"}, "body.state: 'DONE' is none of"),
        ({"runtime_config": {"params": {}}}, r"V2beta1RuntimeConfig has no \['params'\]"),
        ({"runtime_config": "a=1"}, "'a=1' is no V2beta1RuntimeConfig"),
    ],
)
def test_what_does_not_fit_a_model(change, message) -> None:
    check(RUN, "V2beta1Run")
    with pytest.raises(Misfit, match=message):
        check({**RUN, **change}, "V2beta1Run")


def test_a_required_field_is_missed_in_what_is_sent_only() -> None:
    check({}, "V2beta1RecurringRun", sent=False)
    with pytest.raises(Misfit, match="V2beta1RecurringRun needs display_name"):
        check({"max_concurrency": "1"}, "V2beta1RecurringRun")
    with pytest.raises(Misfit, match="V2beta1RecurringRun needs max_concurrency"):
        check({"display_name": "one"}, "V2beta1RecurringRun")


def test_filters() -> None:
    camel = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": "a"}]}
    snake = {"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": "b"}]}
    assert matches({"display_name": "a"}, json.dumps(camel)) and not matches({"display_name": "a"}, json.dumps(snake))
    with pytest.raises(Misfit, match="V2beta1Predicate has no"):
        matches({}, json.dumps({"predicates": [{"operation": "EQUALS", "name": "a"}]}))


def test_over_http(stub) -> None:
    http = urllib3.PoolManager()
    wrong = http.request("POST", f"{stub.url}/apis/v2beta1/runs", json={**RUN, "job_name": "one"})
    assert wrong.status == 400 and "job_name" in wrong.json()["message"]
    assert http.request("GET", f"{stub.url}/apis/v2beta1/jobs").status == 404
    assert http.request("GET", f"{stub.url}/apis/v2beta1/runs", fields={"name": "one"}).status == 400
    assert http.request("POST", f"{stub.url}/apis/v2beta1/runs", json=RUN).status == 404  # no such experiment
