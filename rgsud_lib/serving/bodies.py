"""A request's body, in memory and never more of it than is allowed: it is counted while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from rgsud_lib.config import ServingConfig
from rgsud_lib.serving.refusal import Refusal

FORM_FIELDS = 16


class _InMemory(MultiPartParser):
    spool_max_size = 2**62  # nothing is ever written to disk; the body's limit is the limit


async def read_body(request: Request, settings: ServingConfig) -> bytes:
    """The whole body. Raises Refusal: 413 too large, 408 too slow, 415 compressed."""
    return b"".join([part async for part in _parts(request, settings)])


async def read_picture(request: Request, settings: ServingConfig) -> bytes:
    """The body, or the one file of a multipart form. Raises Refusal: as `read_body`; 400 not one file."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        return await read_body(request, settings)
    parser = _InMemory(request.headers, _parts(request, settings), max_files=1, max_fields=FORM_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: no boundary
        raise Refusal(400, f"this is no multipart form with one file ({error}); see the field `image`") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise Refusal(400, f"the form has {len(files)} files, expected one; send it as the field `image`")
    try:
        return await files[0].read()
    finally:
        await form.close()


async def _parts(request: Request, settings: ServingConfig) -> AsyncIterator[bytes]:
    if encoding := request.headers.get("content-encoding", "identity").replace("identity", ""):
        raise Refusal(415, f"Content-Encoding {encoding!r} is not taken; send the body as it is")
    declared = request.headers.get("content-length", "0")
    _check(int(declared[:20]), settings)  # digits only, or the server would not have taken the request
    received, stream = 0, request.stream()
    deadline = asyncio.get_running_loop().time() + settings.receive_seconds
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                part = await anext(stream, None)
        except TimeoutError:
            message = f"only {received} bytes arrived within {settings.receive_seconds:g} s (receive_seconds)"
            raise Refusal(408, message) from None
        if part is None:
            return
        received += len(part)
        _check(received, settings)
        yield part


def _check(size: int, settings: ServingConfig) -> None:
    if size > settings.max_bytes:
        raise Refusal(413, f"the body has {size} bytes or more, at most max_bytes={settings.max_bytes} are taken")
