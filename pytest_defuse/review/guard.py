"""Who may use the page: the browser in which its printed address was opened, and no other user of the machine."""

import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
ENTRANCE = """\
<!doctype html>
<title>pytest-defuse review</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url=/">
<a href="/">Scenarios</a>
"""
"""A page, not a redirect: browsers send no strict cookie with a redirect that began on another site."""


class Guard:
    """ASGI middleware that refuses requests without the cookie, and adds headers to every response.

    Args:
        token: exchanged for the cookie by the first request for ``/?token=...``; then it is void.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token, self.cookie = app, token, secrets.token_urlsafe()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope)
        # Browsers share cookies among all ports of a machine, so each port has its own name.
        name = f"defuse_review_{scope['server'][1]}"
        token = request.query_params.get("token", "")
        app: ASGIApp
        if _same(request.cookies.get(name, ""), self.cookie):
            app = self.app
        elif self.token and _same(token, self.token):
            self.token = ""
            app = HTMLResponse(ENTRANCE)
            app.set_cookie(name, self.cookie, httponly=True, samesite="strict")
        else:
            app = PlainTextResponse(
                "Open the address that pytest-defuse review printed. It works once, in one browser: for another one, "
                "start the command again.\n",
                403,
            )
        await app(scope, receive, send_with_headers)


def _same(text: str, secret: str) -> bool:
    return secrets.compare_digest(text.encode(), secret.encode())
