"""A session with a Kubeflow Pipelines server: where it is, who we are, and what its errors mean.

kfp.Client alone also obeys ~/.config/kfp/context.json and the environment, logs in interactively and knocks at a
dead server for half a minute. This one is told everything, verifies TLS always, and shows no token.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import kfp.client
import urllib3
from kfp_server_api import ApiException, Configuration, V2beta1GetHealthzResponse
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from rgsud_lib.errors import ConfigError, RgsudError

COOKIE = "KFP_COOKIE"
LOCAL = ("localhost", "127.0.0.1", "::1")
IN_CLUSTER = (".svc", ".svc.cluster.local")


class KubeflowError(RgsudError):
    """The Kubeflow Pipelines server cannot be reached, or refuses."""


class Client(kfp.Client):
    """kfp.Client without its context file, environment variables, logins and waiting."""

    multi_user = False

    def __init__(self, config: Configuration, cookie: str | None, namespace: str) -> None:
        self._given = config
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "only works with KFP 2": nothing else is left
            super().__init__(host=config.host, cookies=cookie)
        if namespace:
            self.set_user_namespace(namespace)
        if self.multi_user and not self.get_user_namespace():
            raise ConfigError(f"{config.host} is shared by several users; give --namespace, your profile's name")

    def run_link(self, run_id: str) -> str:
        """Where the page shows a run."""
        return f"{self._get_url_prefix()}/#/runs/details/{run_id}"

    def set_user_namespace(self, namespace: str) -> None:
        self._context_setting["namespace"] = namespace.strip()

    def get_kfp_healthz(self, sleep_duration: int = 0) -> V2beta1GetHealthzResponse:
        """One request, with which every session begins."""
        health = self._healthz_api.healthz_service_get_healthz()
        kind = self._healthz_api.api_client.last_response.getheader("content-type") or ""
        if "json" not in kind:
            raise KubeflowError(f"{self._given.host} answers with a web page, not with the pipelines API; {_PREFIX}")
        self.multi_user = bool(health.multi_user)
        return health

    def _load_config(self, *_: object) -> Configuration:
        return self._given

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": ""}


@contextmanager
def session(
    host: str | None,
    namespace: str | None = None,
    token_file: Path | None = None,
    cookie_file: Path | None = None,
    ca_file: Path | None = None,
) -> Iterator[Client]:
    """A client for the block; what the server or the network answers in it becomes a KubeflowError.

    The token is read again for each request (Kubernetes renews it in place). Without token and cookie the pod's own
    service account token is used where Kubeflow mounted one.

    Raises ConfigError: no host, plain http to another machine, an unreadable file. KubeflowError: see `_explain`.
    """
    config = Configuration(host=server_address(host))
    config.ssl_ca_cert = str(_readable(ca_file, "--ca-file")) if ca_file else None
    # A redirect is Dex or a proxy asking for a login; to follow it would end in a web page.
    config.retries = urllib3.Retry(total=3, redirect=False, backoff_factor=0.2)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # the error itself comes in words below
    cookie = _secret(cookie_file, "--cookie-file") if cookie_file else os.environ.get(COOKIE)
    token_file = token_file or (None if cookie else _pod_token())
    if token_file:
        config.api_key["authorization"] = _secret(token_file, "--token-file")
        config.api_key_prefix["authorization"] = "Bearer"
        config.refresh_api_key_hook = lambda given: given.api_key.update(
            authorization=_secret(token_file, "--token-file")
        )
    shown = f"the token in {token_file}" if token_file else "a cookie" if cookie else "no token and no cookie"
    try:
        yield Client(config, cookie, namespace or "")
    except ApiException as error:
        raise KubeflowError(_explain(error, config.host, shown)) from error
    except HTTPError as error:
        raise KubeflowError(_unreachable(error, config.host, ca_file)) from error


def server_address(host: str | None) -> str:
    """The address without a trailing slash. Raises ConfigError: none, or one that would send the login in the clear."""
    if not host:
        raise ConfigError("no server; give --host https://kubeflow.example/pipeline or set KFP_HOST")
    parts = urlsplit(host)
    name = parts.hostname or ""
    if parts.username or parts.password:
        raise ConfigError("--host holds a user name or password; give a --token-file or a --cookie-file instead")
    if parts.scheme not in ("http", "https") or not name:
        raise ConfigError(f"--host {host!r} is no address; expected https://kubeflow.example/pipeline")
    if parts.scheme == "http" and name not in LOCAL and not name.endswith(IN_CLUSTER):
        raise ConfigError(
            f"--host {host!r} would send the login unencrypted; use https:// (http:// is for localhost, as with "
            "`kubectl port-forward`, and for names inside the cluster)"
        )
    return host.rstrip("/")


def _pod_token() -> Path | None:
    path = Path(os.environ.get(kfp.client.KF_PIPELINES_SA_TOKEN_ENV) or kfp.client.KF_PIPELINES_SA_TOKEN_PATH)
    return path if path.exists() else None


def _readable(path: Path, option: str) -> Path:
    path = path.expanduser()
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ConfigError(f"{option} {path}: no such file, or no permission to read it")
    return path


def _secret(path: Path, option: str) -> str:
    text = _readable(path, option).read_text().strip()
    if not text or "\n" in text:
        raise ConfigError(f"{option} {path}: expected one line, found {len(text.splitlines())}")
    return text


def _explain(error: ApiException, host: str, shown: str) -> str:
    """What an HTTP status of the API means for the user."""
    if error.status in (301, 302, 303, 307, 308):
        return f"{host} asks for a login ({shown} was sent); {_LOGIN}"
    try:
        document = json.loads(error.body or "")
        said = str(document.get("message") or document.get("error") or "")
    except (ValueError, AttributeError):
        said = ""
    advice = {
        401: f"the login is missing or has expired ({shown} was sent); {_LOGIN}",
        403: f"not allowed ({shown} was sent); check --namespace, and that your account may use pipelines there",
        404: f"not found; check the name, and {_PREFIX}",
        409: "there is one of that name already; choose another name",
    }.get(error.status, "the request is refused" if error.status < 500 else "try again, or ask the server's operator")
    return f"{host}: HTTP {error.status}: {advice}" + (f"\nthe server says: {said[:500]}" if said else "")


def _unreachable(error: HTTPError, host: str, ca_file: Path | None) -> str:
    cause = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(cause, SSLError):
        authority = f"the authorities in {ca_file}" if ca_file else "the public authorities"
        return (
            f"{host}: its TLS certificate is not trusted by {authority} ({cause}); "
            "give --ca-file FILE.pem with the authority that signed it"
        )
    what = str(cause).rpartition("): ")[2]  # without the connection object
    return f"{host} cannot be reached ({what}); check the address, the network, or that `kubectl port-forward` runs"


_LOGIN = (
    f"give --token-file FILE, or --cookie-file FILE (or {COOKIE}) with the session cookie of your browser, "
    "such as authservice_session=..."
)
_PREFIX = "check --host: on a full Kubeflow it ends in /pipeline"
