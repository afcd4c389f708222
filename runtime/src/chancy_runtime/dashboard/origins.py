"""Whether a request comes from the dashboard's own page."""

import re

from starlette.datastructures import Headers


def is_own(headers: Headers) -> bool:
    """Whether a change, or a WebSocket, comes from the dashboard's own page.

    A browser sends the origin of both, and no page can change that. Behind a proxy that
    renames the host, X-Forwarded-Host counts too; no page of another site can send it.
    """
    return headers.get("origin") is not None and not is_foreign(headers)


def is_foreign(headers: Headers, *, by_person: tuple[str, ...] = ()) -> bool:
    """Whether a request comes from a page of another site.

    Args:
        by_person: Values of Sec-Fetch-Site that are accepted beside same-origin.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", *by_person):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    host = _host(origin)
    return not host or host not in (
        headers.get("host"),
        headers.get("x-forwarded-host"),
    )


def is_encrypted(origin: str) -> bool | None:
    """Whether the page of an origin came over https; None for a page of this machine."""
    name = re.sub(r":\d*$", "", _host(origin))
    if origin.startswith("http://") and (
        name in ("localhost", "127.0.0.1", "[::1]") or name.endswith(".localhost")
    ):
        return None
    return origin.startswith("https://")


def _host(origin: str) -> str:
    return origin.partition("://")[2]
