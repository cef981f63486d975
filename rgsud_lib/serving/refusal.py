"""What a client is told: an HTTP status and a sentence, as the JSON document {"error": ...}."""

from __future__ import annotations

from rgsud_lib.errors import DataError, RgsudError

FAULTS = {"too many pixels": 413, "not an image": 415, "empty file": 400}  # by `decode`'s words before the colon


class Refusal(RgsudError):
    """A request that is not done, with its status; `retry` seconds for one that may be repeated."""

    def __init__(self, status: int, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {} if retry is None else {"Retry-After": str(retry)}


def refused_image(error: DataError) -> Refusal:
    """The refusal of a picture that `decode` refused: 413 too large, 415 no image, else 422."""
    message = str(error).replace("data.max_pixels", "max_pixels")
    return Refusal(FAULTS.get(message.partition(":")[0], 422), message)
