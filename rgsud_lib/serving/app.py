"""The addresses of the service. Handlers only await: what computes is done by the engine's thread or a pool's."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from rgsud_lib import __version__
from rgsud_lib.serving import bodies, pictures, protocol
from rgsud_lib.serving.metrics import GONE
from rgsud_lib.serving.observed import Observed
from rgsud_lib.serving.refusal import Refusal
from rgsud_lib.serving.service import Service

SCORES = "Rgsud-Scores"
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"


def create_app(service: Service) -> FastAPI:
    """The service as an ASGI application; /openapi.json describes it, without pages that would need the network."""
    app = FastAPI(title="rgsud", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Observed, metrics=service.metrics)
    _add_errors(app)
    _add_health(app, service)
    _add_protocol(app, service)
    _add_pictures(app, service)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return JSONResponse({"error": str(error)}, error.status, error.headers)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail.lower()}; see /openapi.json"
        return JSONResponse({"error": message}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(*_: object) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def failed(*_: object) -> Response:
        return JSONResponse({"error": "the service failed; its log says why"}, 500)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": "rgsud", "version": __version__, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_protocol(app: FastAPI, service: Service) -> None:
    settings = service.settings

    def known(name: str, version: str = service.version) -> None:
        if (name, version) != (settings.name, service.version):
            there = f"{settings.name!r}, version {service.version!r}"
            raise Refusal(404, f"there is no model {name!r}, version {version!r}; there is {there}")

    @app.get(MODEL)
    @app.get(VERSION)
    async def model(name: str, version: str = service.version) -> dict[str, Any]:
        known(name, version)
        return protocol.describe(settings, service.version)

    @app.get(MODEL + "/ready")
    @app.get(VERSION + "/ready")
    async def model_ready(name: str, version: str = service.version) -> Response:
        known(name, version)
        document = {"name": name, "ready": service.ready}
        return JSONResponse(document, 200 if service.ready else 503)

    @app.post(MODEL + "/infer")
    @app.post(VERSION + "/infer")
    async def infer(request: Request, name: str, version: str = service.version) -> Response:
        known(name, version)
        with service.place():
            body = await bodies.read_body(request, settings)

            async def answer() -> Response:
                header = request.headers.get(protocol.HEADER)
                asked = await service.compute(protocol.read_inference, body, header, settings)
                results = await service.engine.derain([picture.samples for picture in asked.pictures])
                data, size = await service.compute(protocol.write_inference, asked, results, settings, service.version)
                if size is None:
                    return Response(data, media_type="application/json")
                return Response(data, headers={protocol.HEADER: str(size)}, media_type="application/octet-stream")

            return await service.within_time(request, answer())


def _add_pictures(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/derain", openapi_extra=_BODY)
    async def derain(
        request: Request,
        form: Annotated[
            str | None, Query(alias="format", description="png, jpeg, webp or tiff; default: as it came")
        ] = None,
        scores: Annotated[bool, Query(description=f"add quality scores, JSON in the header {SCORES}")] = False,
    ) -> Response:
        """An image file, as body or as the file of a multipart form, to the derained image."""
        with service.place():
            data = await bodies.read_picture(request, settings)

            async def answer() -> Response:
                rainy = await service.compute(pictures.read_picture, data, settings.max_pixels)
                chosen = pictures.choose_format(form, data)
                (derained,) = await service.engine.derain([rainy.samples])
                file = await service.compute(pictures.write_picture, rainy, derained, chosen)
                headers = {}
                if scores:
                    headers[SCORES] = json.dumps(await service.compute(service.scores, rainy.samples, derained))
                return Response(file, headers=headers, media_type=pictures.FORMATS[chosen])

            return await service.within_time(request, answer())


_FILE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"image": _FILE["schema"]}}}
_BODY = {"requestBody": {"required": True, "content": {"image/*": _FILE, "multipart/form-data": _FORM}}}
