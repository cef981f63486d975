"""From a model's name to a running service, and from SIGTERM to its end: not ready, finish, exit with 0."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import torch
import uvicorn

from rgsud_lib.config import ServingConfig
from rgsud_lib.errors import NodeError, RgsudError
from rgsud_lib.files import sha256_file
from rgsud_lib.inference import Derainer, Mirrored, find_model, load_derainer, weights_digest
from rgsud_lib.rewards.critic import Critic
from rgsud_lib.serving.app import create_app
from rgsud_lib.serving.gallery import Gallery
from rgsud_lib.serving.page import add_page
from rgsud_lib.serving.scores import Scores
from rgsud_lib.serving.service import Service

logger = logging.getLogger("rgsud")


def serve(model: Path, settings: ServingConfig, host: str, port: int, ui_workdir: str | None = None) -> bool:
    """Serve the model until SIGTERM or Ctrl-C; with `ui_workdir` the page too, and that workdir's held-out images.

    Returns whether every request was answered. Raises BundleError: no such model, or other weights than
    settings.weights_digest; NodeError: the address cannot be had.
    """
    file, device = find_model(model), "cuda" if torch.cuda.is_available() else "cpu"
    network = load_derainer(file, device)
    weights = network.state_dict()
    digest = weights_digest(weights) if weights else sha256_file(file)  # an ONNX file has none that torch sees
    network = Mirrored(network) if settings.mirror else network
    derainer = Derainer(network, device, settings.tile, settings.overlap)
    gallery = _gallery(ui_workdir) if ui_workdir is not None else ""
    critic = None if isinstance(gallery, str) else gallery.data.critic
    service = Service(derainer, digest, settings, Scores(Critic.load(critic) if critic else None))
    app = create_app(service)
    if ui_workdir is not None:
        add_page(app, service, gallery)
    with _listen(host, port) as listening:
        where = f"http://{host}:{listening.getsockname()[1]}"
        logger.info("serving %s %s at %s (Ctrl-C ends it)", settings.name, service.version, where)
        server = _Server(app, service)
        server.run([listening])
    service.close()
    logger.info("every request was answered" if server.clean else "drain_seconds were over: some requests were cut off")
    return server.clean


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise NodeError(f"cannot listen at {host}:{port} ({reason}); choose another --host or --port") from None


def _gallery(workdir: str) -> Gallery | str:
    try:
        return Gallery(workdir)
    except RgsudError as error:
        logger.warning("no gallery: %s", error)
        return str(error)


class _Server(uvicorn.Server):
    """Uvicorn, but for its end: it would close its socket at once and then die of the signal."""

    def __init__(self, app: object, service: Service) -> None:
        drain = service.settings.drain_seconds
        options = {"http": "h11", "ws": "none", "lifespan": "off", "access_log": False, "log_config": None}
        super().__init__(uvicorn.Config(app, server_header=False, timeout_graceful_shutdown=drain, **options))
        self._service, self._leave_at = service, float("inf")
        self.clean = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: no longer ready, and leave (Ctrl-C: at once) when that has got about; second: stop now."""
        if not self._service.ready:
            self.should_exit = self.force_exit = True
        self._service.ready = False
        notice = 0 if sig == signal.SIGINT else self._service.settings.notice_seconds
        self._leave_at = time.monotonic() + notice

    async def on_tick(self, counter: int) -> bool:
        self.should_exit |= time.monotonic() >= self._leave_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self.clean = not self.server_state.tasks
