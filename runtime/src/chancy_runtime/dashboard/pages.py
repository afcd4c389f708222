"""The gate's own pages, and the headers of all its answers."""

import base64
import hashlib
import html
from string import Template
from urllib.parse import quote

from starlette.responses import HTMLResponse, JSONResponse, Response

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With no-referrer a browser would send the login form with the origin "null".
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Chancy's page has styles in its elements, and images and fonts in its CSS.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 20vh auto; max-width: 22em; padding: 0 1em }
h1 { font-size: 1.2em }
input, button { box-sizing: border-box; font: inherit; margin-top: .5em; padding: .5em; width: 100% }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_OWN_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_PAGE = Template(f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Dashboard</title>
<style>{_STYLE}</style>
<h1>Dashboard</h1>
$content
</html>
""")
_FORM = Template("""$note
<form method="post" action="$action">
<label for="password">Password</label>
<input id="password" name="password" type="password" required autofocus
 autocomplete="current-password">
<input name="page" type="hidden" value="$page">
<button>Log in</button>
</form>""")
# Chancy's page would show a login of its own when a session is over.
SCRIPT = """\
const ask = window.fetch;
window.fetch = async (...request) => {
  const answer = await ask(...request);
  if (answer.status === 401) location.reload();
  return answer;
};
"""


def secured(response: Response, *, policy: str = _POLICY, keep: int = 0) -> Response:
    """Adds the headers of every answer.

    Args:
        keep: Seconds for which the browser may cache the answer; only for files of the page.
    """
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers["Content-Security-Policy"] = policy
    if keep:
        response.headers["Cache-Control"] = f"private, max-age={keep}"
    return response


def sentence(text: str, status: int, *, as_page: bool) -> Response:
    """Answers with one sentence, as a page or in the JSON format of Chancy's page."""
    if not as_page:
        return secured(JSONResponse({"title": text}, status))
    return _page(f"<p>{html.escape(text)}</p>", status)


def login_form(base: str, page: str, *, note: str = "", status: int = 401) -> Response:
    """Returns the form for the password.

    Args:
        base: The path of the dashboard.
        page: The page of the dashboard to show after the login.
        note: The reason why the last attempt failed.
    """
    content = _FORM.substitute(
        action=html.escape(quote(f"{base}/login")),
        page=html.escape(page),
        note=f"<p>{html.escape(note)}</p>" if note else "",
    )
    return _page(content, status)


def _page(content: str, status: int) -> Response:
    return secured(
        HTMLResponse(_PAGE.substitute(content=content), status), policy=_OWN_POLICY
    )
