"""Addresses of tracking servers and databases as they may be shown: passwords belong in no log, verdict or page.

Without mlflow, which is not everywhere where an address is shown.
"""

from __future__ import annotations

import re

# user:password@ after ://, where the password may hold what an address should have escaped (SQLAlchemy takes it so).
# Digits and a slash after the colon are a port.
USERINFO = re.compile(r"(?<=://)(?:[^/?#\s]*|[^/?#\s:]*:(?!\d+/)[^\s@]*)@")
# As libpq and some drivers of MySQL take it.
SECRET = re.compile(r"([?&]\w*(?:passw(?:or)?d|secret|token)\w*=)[^&\s]*", re.IGNORECASE)


def shown(text: str) -> str:
    """An address, or a message with addresses in it, without user names and passwords; doing it twice changes nothing.

    `postgresql://u:secret@db/mlflow` becomes `postgresql://db/mlflow`.
    """
    return SECRET.sub(r"\1***", USERINFO.sub("", text))


def first_line(error: Exception) -> str:
    """What an error is, without the passwords of addresses that it names."""
    lines = shown(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
