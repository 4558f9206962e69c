"""Credentials in URLs: they are for the server alone, and recorded nowhere.

A URL may hold a password (`https://USER:PASSWORD@HOST/…`), or be signed (`…?X-Amz-Signature=…`).
A signed one is good for some hours: tomorrow the same file has another.
"""

from __future__ import annotations

import re
from typing import Any

_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://[^\s"]+')
_BEHIND = ":,;.)]}'"  # may follow a URL in a sentence, and end none
_USER = re.compile(r"(?<=://)(?:(?<=http://)|(?<=https://)|(?=[^/?#]*:))[^/?#]*@")
_PARAMETER = re.compile(
    r"x-(?:amz|goog|ms|oss|obs)-.*|(?:.*[-_])?(?:token|secret|signature|credentials?|policy|expires)"
    r"|.*(?:api|access|secret|private|account)[-_]?key(?:[-_]?id)?|key|key-pair-id|googleaccessid"
    r"|pass(?:word|wd)?|pwd|sig|auth(?:orization)?|user(?:name)?|q-(?:sign|ak|key|header|url).*",
    re.IGNORECASE,
)
# What goes with Azure's `sig`, and would say nothing of a secret without it.
_AZURES = {"sv", "ss", "srt", "sp", "spr", "sip", "st", "se", "sr", "sdd", "skoid", "sktid"} | {
    *("skt", "ske", "sks", "skv", "saoid", "suoid", "scid", "si")
}


def public(text: str) -> str:
    """A text, the URLs in it without user, password and the parameters of a signature."""
    return _URL.sub(_public_url, text) if "://" in text else text


def public_values(value: Any) -> Any:
    """JSON types with every text in them made `public`."""
    if isinstance(value, str):
        return public(value)
    if isinstance(value, list):
        return [public_values(item) for item in value]
    if isinstance(value, dict):
        return {key: public_values(item) for key, item in value.items()}
    return value


def restored(url: str, given: list[str]) -> str:
    """The URL that has become `url` by `public`, with the credentials that are given now.

    Args:
        url: of a file.
        given: what the user names: the file's URL, or that of a folder or a pattern on its server.
    """
    for path in given:
        if path != url and public(path) == url:
            return path
    for path in given:
        if user := _USER.search(path):
            begin, host = path[: user.start()], path[user.end() :].partition("/")[0]
            if url.startswith(f"{begin}{host}/"):
                return begin + user[0] + url.removeprefix(begin)
    return url


def _public_url(found: re.Match[str]) -> str:
    url = found[0].rstrip(_BEHIND)
    behind = found[0][len(url) :]
    url = _USER.sub("", url)
    path, _, query = url.partition("?")
    query, fragment_sign, fragment = query.partition("#")
    parameters = query.split("&")
    names = {parameter.partition("=")[0].lower() for parameter in parameters}
    secret = {name for name in names if _PARAMETER.fullmatch(name)}
    secret |= _AZURES if "sig" in names else set()
    if not secret or "=" not in query:
        return url + behind
    kept = [p for p in parameters if p.partition("=")[0].lower() not in secret]
    query = f"?{'&'.join(kept)}" if kept else ""
    return path + query + fragment_sign + fragment + behind
