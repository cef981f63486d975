"""Real servers for the integration tests, one of each a session. They fail, never skip, where a program is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ceph import S3Server
from containers import DockerDaemon, Image
from mlflow_process import MlflowServer
from postgres import PostgresServer


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's S3 gateway, which the environment names from then on; `stop()` kills it, `start()` brings it back."""
    server = S3Server(tmp_path_factory.mktemp("ceph"))
    with pytest.MonkeyPatch.context() as patch:
        try:
            server.bring_up()
            for name, value in server.environment().items():
                patch.setenv(name, value)
            yield server
        finally:
            server.shut_down()


@pytest.fixture(scope="session")
def s3(s3_server: S3Server) -> Any:
    """A boto3 client of the server."""
    import boto3

    return boto3.client("s3", endpoint_url=s3_server.endpoint)


@pytest.fixture
def new_bucket(s3: Any, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes an empty bucket, named after the test, at each call."""
    made: list[str] = []

    def make() -> str:
        name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
        made.append(f"{name}-{len(made)}")
        s3.create_bucket(Bucket=made[-1])
        return made[-1]

    return make


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerDaemon]:
    """A Docker daemon of our own, which goes with all it holds, or the one that DOCKER_HOST names."""
    daemon = DockerDaemon(tmp_path_factory.mktemp("docker"))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture(scope="session")
def rgsud_image(docker_daemon: DockerDaemon) -> Image:
    """The image of the Dockerfile, under the name that the compiled pipelines have in development."""
    return docker_daemon.build()


@pytest.fixture(scope="session")
def mlflow_server(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server with its artifacts in a bucket of the S3 server, written by the clients."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"), s3_server)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with an empty database."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()
