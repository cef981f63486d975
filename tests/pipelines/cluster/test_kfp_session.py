"""Logging in to Kubeflow, and what its refusals tell the user."""

from __future__ import annotations

import datetime
import ipaddress
import json
from pathlib import Path

import kfp.client
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rgsud_lib.errors import ConfigError
from rgsud_pipelines.cluster.kfp_session import KubeflowError, server_address, session

from .kfp_stub import Stub, serve

SECRET = "eyJhbGciOi.very-secret"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Certificate and key of localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def refusal(*arguments, **options) -> str:
    """The message of the error that a session with one request ends in."""
    with pytest.raises((KubeflowError, ConfigError)) as caught, session(*arguments, **options) as client:
        client.list_runs()
    return str(caught.value)


def test_the_token_is_sent_and_read_again_for_each_request(stub, token_file) -> None:
    stub.token = SECRET
    with session(stub.url, token_file=token_file) as client:
        client.list_runs()
        stub.token = "renewed"
        token_file.write_text("renewed")
        client.list_runs()


def test_a_refused_token_is_named_but_not_shown(stub, token_file) -> None:
    stub.token = "another"
    message = refusal(stub.url, token_file=token_file)
    assert f"HTTP 401: the login is missing or has expired (the token in {token_file} was sent)" in message
    assert "no user identity header" in message and SECRET not in message


def test_without_login_the_ways_in_are_named(stub) -> None:
    stub.token = SECRET
    message = refusal(stub.url)
    assert "no token and no cookie was sent" in message
    assert "--token-file" in message and "--cookie-file" in message and "KFP_COOKIE" in message


def test_a_pods_own_token_is_found(stub, token_file, monkeypatch) -> None:
    stub.token = SECRET
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token_file))
    with session(stub.url) as client:
        client.list_runs()


def test_a_cookie_from_a_file_or_the_environment(stub, tmp_path, monkeypatch) -> None:
    (tmp_path / "cookie").write_text("authservice_session=abc\n")
    with session(stub.url, cookie_file=tmp_path / "cookie"):
        pass
    monkeypatch.setenv("KFP_COOKIE", "authservice_session=def")
    with session(stub.url):
        pass
    assert [headers["Cookie"] for _, _, headers, _ in stub.requests] == [
        "authservice_session=abc",
        "authservice_session=def",
    ]


def test_what_kfp_finds_on_this_machine_is_not_used(stub, tmp_path, monkeypatch) -> None:
    context = {"namespace": "elsewhere", "client_authentication_cookie": "authservice_session=old"}
    (tmp_path / "context.json").write_text(json.dumps(context))
    monkeypatch.setattr(kfp.client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "https://elsewhere.example")
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "would ask for a login")
    with session(stub.url) as client:
        client.list_runs()
    assert [name for name, *_ in stub.requests] == ["healthz_service_get_healthz", "run_service_list_runs"]
    assert not any("Cookie" in headers or query.get("namespace") for _, query, headers, _ in stub.requests)
    assert json.loads((tmp_path / "context.json").read_text()) == context


def test_a_shared_server_wants_a_namespace(stub) -> None:
    stub.multi_user = True
    assert "give --namespace, your profile's name" in refusal(stub.url)
    with session(stub.url, namespace="kubeflow") as client:
        client.list_runs()
    assert stub.requests[-1][1]["namespace"] == "kubeflow"


def test_tls_is_verified(certificate) -> None:
    with serve(Stub(), certificate) as stub:
        message = refusal(stub.url)
        assert "certificate is not trusted by the public authorities" in message and "give --ca-file" in message
        assert stub.requests == []
        with session(stub.url, ca_file=certificate) as client:
            assert client.list_runs().runs == []


def test_a_server_that_is_not_there() -> None:
    with serve(Stub()) as stub:
        pass
    assert "Connection refused; check the address" in refusal(stub.url).replace("]", "").replace(")", "")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (None, "set KFP_HOST"),
        ("kubeflow.example", "expected https://"),
        ("ftp://kubeflow.example", "expected https://"),
        ("http://kubeflow.example", "would send the login unencrypted; use https://"),
        ("https://me:hunter2@kubeflow.example", "holds a user name or password"),
    ],
)
def test_an_address_that_is_none_or_unsafe(host, message) -> None:
    text = refusal(host)
    assert message in text and "hunter2" not in text


def test_tls_is_not_asked_of_localhost_and_of_names_inside_the_cluster() -> None:
    hosts = ["http://127.0.0.1:8888", "http://[::1]:8888", "http://ml-pipeline.kubeflow.svc.cluster.local:8888"]
    assert [server_address(f"{host}/") for host in hosts] == hosts


def test_a_login_page_instead_of_the_api(stub) -> None:
    stub.redirect = True
    assert "asks for a login (no token and no cookie was sent)" in refusal(stub.url)
    stub.redirect, stub.page = False, "<html>Sign in</html>"
    assert "answers with a web page, not with the pipelines API" in refusal(stub.url)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "not allowed (no token and no cookie was sent); check --namespace"),
        (404, "not found; check the name, and check --host"),
        (409, "there is one of that name already; choose another name"),
        (400, "the request is refused"),
        (500, "try again, or ask the server's operator"),
    ],
)
def test_each_refusal_says_what_to_do(stub, status, message) -> None:
    stub.tables["run"] = [{"run_id": "one", "display_name": "one"}]
    stub.script = [status]
    with pytest.raises(KubeflowError) as caught, session(stub.url) as client:
        client.get_run("one")
    assert f"HTTP {status}: {message}" in str(caught.value)
    assert "the server says: the server is being updated" in str(caught.value)


def test_a_file_that_holds_no_token(stub, tmp_path) -> None:
    assert f"--token-file {tmp_path / 'no'}: no such file" in refusal(stub.url, token_file=tmp_path / "no")
    (tmp_path / "two").write_text("a\nb\n")
    assert "expected one line, found 2" in refusal(stub.url, token_file=tmp_path / "two")
    (tmp_path / "empty").write_text("")
    assert "expected one line, found 0" in refusal(stub.url, cookie_file=tmp_path / "empty")
