"""Secrets in texts: passwords in URLs and signatures in their queries, which no message or table may contain."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["has_password", "without_secrets"]

_USER: Final = re.compile(r"(?<=://)[^/\s?#]*@")
_QUERY: Final = re.compile(r"(://[^\s?#'\"]*)\?[^\s'\"]*")


def has_password(url: str) -> bool:
    """Return whether a URL contains a user name or a password."""
    return _USER.search(url) is not None


def without_secrets(text: str) -> str:
    """Return a text in which URLs have no user, no password and no query."""
    return _QUERY.sub(lambda found: f"{found[1]}?***{_end(found[0])}", _USER.sub("***@", text))


def _end(url: str) -> str:
    """Return the punctuation after a URL, which belongs to the sentence."""
    return url[len(url.rstrip(",.;:)")) :]
