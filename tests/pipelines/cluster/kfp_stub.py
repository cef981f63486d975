"""A Kubeflow Pipelines server in a thread: it keeps in memory what fits the published API and refuses the rest."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from .kfp_api import Misfit, Route, check, matches, routes

ROUTES = routes()
START = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Refused(Exception):
    """An HTTP status with the server's words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass
class Stub:
    """`requests` is what came in; `script` the changes that each look at a run finds, the last one stays."""

    token: str | None = None
    multi_user: bool = False
    url: str = ""
    requests: list[tuple[str, dict[str, str], dict[str, str], Any]] = field(default_factory=list)
    script: list[dict[str, Any] | int] = field(default_factory=list)
    page: str | None = None  # answer everything with this web page
    redirect: bool = False
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def sent(self, operation: str) -> list[Any]:
        """Bodies of the requests for one operation."""
        return [body for name, _, _, body in self.requests if name == operation]

    @property
    def writes(self) -> list[str]:
        return [name for name, *_ in self.requests if not any(verb in name for verb in ("_get_", "_list_"))]

    def answer(self, route: Route, path: dict[str, str], query: dict[str, str], body: Any) -> Any:
        if route.operation == "healthz_service_get_healthz":
            return {"multi_user": self.multi_user}
        if query.get("namespace") and not self.multi_user:
            raise Refused(400, "In single-user mode, namespace must be empty")
        if route.operation == "upload_pipeline_version":
            self._one("pipeline", query["pipelineid"])
            named = {"name": query["name"], "display_name": query.get("display_name", query["name"])}
            return self._create(
                "pipeline_version", {**named, "pipeline_id": query["pipelineid"], "pipeline_spec": body}
            )
        verb, _, kind = route.operation.partition("_service_")[2].partition("_")
        if verb == "create":
            return self._create(kind, body)
        if verb == "list":
            keys = getattr(kfp_server_api, route.answer).attribute_map
            found, more = self._list(kind.removesuffix("s"), path, query)
            return {keys[kind]: found, keys["total_size"]: len(found), keys["next_page_token"]: more}
        record = self._one(kind, path[f"{kind}_id"])
        if verb == "delete":
            self.tables[kind].remove(record)
        elif verb in ("enable", "disable"):
            record["status"] = f"{verb.upper()}D"
        elif verb == "get":
            return self._changed(record) if kind == "run" else record
        else:
            raise Refused(501, f"{route.operation} is not needed by anybody yet")
        return {}

    def _create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        table = self.tables.setdefault(kind, [])
        if kind in ("experiment", "pipeline") and any(old["display_name"] == body["display_name"] for old in table):
            raise Refused(409, f"{kind} {body['display_name']} already exists")
        if kind in ("run", "recurring_run"):
            self._one("experiment", body["experiment_id"])
            _check_job(body.get("pipeline_spec") or self._version(body["pipeline_version_reference"]), body)
        record = {**body, f"{kind}_id": f"{kind}-{sum(map(len, self.tables.values()))}"}
        record["created_at"] = (START + timedelta(seconds=len(self.requests))).isoformat()
        if kind == "recurring_run":
            record["status"] = f"{body['mode']}D"
        table.append(record)
        return record

    def _version(self, reference: dict[str, str]) -> dict[str, Any]:
        versions, _ = self._list("pipeline_version", {"pipeline_id": reference["pipeline_id"]}, {})
        wanted = reference.get("pipeline_version_id") or versions[-1]["pipeline_version_id"]
        return self._one("pipeline_version", wanted)["pipeline_spec"]

    def _one(self, kind: str, key: str) -> dict[str, Any]:
        for record in self.tables.get(kind, []):
            if record[f"{kind}_id"] == key:
                return record
        raise Refused(404, f"{kind} {key} not found")

    def _list(self, kind: str, path: dict[str, str], query: dict[str, str]) -> tuple[list, str]:
        wanted = {**path, **{key: query[key] for key in ("experiment_id",) if key in query}}
        if kind in ("experiment", "pipeline"):
            wanted["namespace"] = query.get("namespace", "")
        found = [
            record
            for record in self.tables.get(kind, [])
            if all(record.get(key, "") == value for key, value in wanted.items())
            and matches(record, query.get("filter"))
        ]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        first, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
        return found[first : first + size], str(first + size) if first + size < len(found) else ""

    def _changed(self, record: dict[str, Any]) -> dict[str, Any]:
        change = (self.script.pop(0) if len(self.script) > 1 else self.script[0]) if self.script else {}
        if isinstance(change, int):
            raise Refused(change, "the server is being updated")
        return {**record, **change}


def _check_job(spec: dict[str, Any], body: dict[str, Any]) -> None:
    """As the real server does: the pipeline can be parsed, and gets its parameters."""
    try:
        parsed = json_format.ParseDict(spec["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(spec["platform_spec"], pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise Refused(400, f"invalid pipeline spec: {error}") from error
    inputs = parsed.root.input_definitions.parameters
    given = set(body["runtime_config"]["parameters"])
    required = {name for name, one in inputs.items() if not one.is_optional}
    if given - set(inputs) or required - given:
        raise Refused(400, f"unknown {given - set(inputs)}, missing {required - given}")
    if "max_concurrency" in body and not 1 <= int(body["max_concurrency"]) <= 10:
        raise Refused(400, "max_concurrency is out of range")


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def _serve(self) -> None:
        stub, data = self.stub, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if stub.redirect:
            return self._send(302, b"", Location="https://kubeflow.example/dex/auth")
        if stub.page:
            return self._send(200, stub.page.encode(), **{"Content-Type": "text/html"})
        try:
            status, document = 200, self._answer(data)
        except (Misfit, Refused) as error:
            status = getattr(error, "status", 400)
            document = {"error": str(error), "message": str(error), "code": status, "details": []}
        self._send(status, json.dumps(document).encode(), **{"Content-Type": "application/json"})

    def _answer(self, data: bytes) -> Any:
        stub, parts = self.stub, urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        for route in ROUTES:
            path = route.path.fullmatch(parts.path)
            if path and route.verb == self.command:
                break
        else:
            raise Refused(404, "Not Found")
        body = self._body(route, data)
        stub.requests.append((route.operation, query, dict(self.headers), body))
        if stub.token and self.headers.get("authorization") != f"Bearer {stub.token}":
            raise Refused(401, "Request header error: there is no user identity header.")
        if unknown := sorted(set(query) - route.query):
            raise Misfit(f"{route.operation} has no query parameter {unknown}")
        answer = stub.answer(route, path.groupdict(), query, body)
        try:
            check(answer, route.answer, "answer", sent=False)
        except Misfit as error:
            raise Refused(500, f"this stub is wrong: {error}") from error
        return answer

    def _body(self, route: Route, data: bytes) -> Any:
        if route.upload:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            (part,) = message_from_bytes(head + data).get_payload()
            pipeline, platform = yaml.load_all(part.get_payload(decode=True), Loader=yaml.CSafeLoader)
            return {"pipeline_spec": pipeline, "platform_spec": platform}
        if route.body is None:
            return None
        body = json.loads(data)
        check(body, route.body)
        return body

    def _send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = _serve

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def serve(stub: Stub, certificate: Path | None = None) -> Iterator[Stub]:
    """Run the stub on a free port, with TLS where a file with certificate and key is given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stub.url = f"{'https' if certificate else 'http'}://localhost:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
