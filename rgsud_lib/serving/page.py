"""The page of `rgsud serve --ui`: one document that asks this service only, and may do nothing else."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import FastAPI
from starlette.responses import Response

from rgsud_lib.evaluation.page import render_page
from rgsud_lib.serving.gallery import Gallery
from rgsud_lib.serving.refusal import Refusal
from rgsud_lib.serving.service import Service


def add_page(app: FastAPI, service: Service, gallery: Gallery | str) -> None:
    """Add / and /gallery; a `gallery` in words says why there is none."""
    html = render_page(
        "rgsud_lib.serving",
        "ui.html",
        meanings={name: meaning._asdict() for name, meaning in service.scores.meanings.items()},
        items=[] if isinstance(gallery, str) else gallery.items,
        why_not=gallery if isinstance(gallery, str) else "",
        model=f"{service.settings.name} {service.version}",
        megabytes=service.settings.max_bytes // 2**20,
        megapixels=f"{service.settings.max_pixels / 1e6:g}",
    )
    headers = {"Content-Security-Policy": policy(html)}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(html, headers=headers, media_type="text/html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    @app.get("/gallery/{id}", include_in_schema=False)
    async def picture(id: str, small: bool = False) -> Response:
        if isinstance(gallery, str) or id not in gallery:
            raise Refusal(404, f"{id!r} is no held-out image of this run")
        data = await service.compute(gallery.thumbnail if small else gallery.picture, id)
        return Response(data, media_type="image/jpeg" if small else "image/png")


def policy(html: str) -> str:
    """The Content-Security-Policy under which a document may run what is in it, and ask where it came from."""
    own = {tag: " ".join(_hashes(tag, html)) for tag in ("script", "style")}
    return (
        f"default-src 'none'; script-src {own['script']}; style-src {own['style']}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(tag: str, html: str) -> list[str]:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.S)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found]
