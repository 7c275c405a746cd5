"""The studio's server: the page, the socket of the page, and the HTTP interface, behind one guard."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from export3d import __version__
from export3d.studio.api import build_api
from export3d.studio.videos import MESHES
from export3d.studio.workshop import Workshop

PAGE = Path(__file__).parent / "page"
COOKIE = "export3d-studio"
MADE = (".png", ".mp4", ".safetensors", *(f".{kind}" for kind in MESHES))
"""What can be fetched of the workshop's folder."""
LOCAL = ("127.0.0.1", "localhost", "::1")

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
"""The page may load from this server alone."""


class Guard:
    """Lets requests through that come from the studio's own page or from a program, with the password where there is one.

    Args:
        app: what is guarded.
        hosts: names under which the server may be called; None: any. Keeps pages from elsewhere from reaching a server on
            this computer under a name of their own.
        password: any user name, this password (HTTP Basic); a cookie stands for it afterwards.
    """

    def __init__(self, app: Any, hosts: Sequence[str] | None, password: str | None) -> None:
        self._app, self._hosts, self._password = app, hosts, password
        self._token = secrets.token_urlsafe(32)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        status, text = self._verdict(headers)
        if status == 200:
            await self._app(scope, receive, self._with_cookie(send) if self._password else send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            more = [(b"www-authenticate", b'Basic realm="Export3D studio"')] if status == 401 else []
            start = {"type": "http.response.start", "status": status}
            await send({**start, "headers": [(b"content-type", b"text/plain; charset=utf-8"), *more]})
            await send({"type": "http.response.body", "body": text.encode()})

    def _verdict(self, headers: dict[str, str]) -> tuple[int, str]:
        host = headers.get("host", "")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return 403, "This studio does not answer under that name.\n"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Other pages may not use this studio.\n"
        if self._password is not None and not self._knows_password(headers):
            return 401, "This studio asks for a password.\n"
        return 200, ""

    def _knows_password(self, headers: dict[str, str]) -> bool:
        assert self._password is not None
        given_cookies = [part.strip() for part in headers.get("cookie", "").split(";")]
        if f"{COOKIE}={self._token}" in given_cookies:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        try:
            word = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
        return kind.lower() == "basic" and hmac.compare_digest(word.encode(), self._password.encode())

    def _with_cookie(self, send: Any) -> Any:
        cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/".encode()

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", cookie)]}
            await send(message)

        return sending


def build_app(
    workshop: Workshop,
    *,
    samples: Sequence[Path] = (),
    clips: Sequence[Path] = (),
    password: str | None = None,
    api_only: bool = False,
    hosts: Sequence[str] | None = LOCAL,
) -> Any:
    """The ASGI application; needs the extra `studio`.

    Args:
        samples: portraits that the page offers.
        clips: driving clips that it offers.
        password, hosts: see `Guard`.
        api_only: no page, only the HTTP interface.
    """
    blocks = build_api(workshop)  # imports gradio, with the settings it needs
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if api_only:

        @app.get("/")
        async def nothing() -> Any:
            return PlainTextResponse(f"Export3D {__version__}: no page here. See /gradio_api/info\n")

    else:
        _add_page(app, workshop, {"portraits": samples, "clips": clips})
    how: dict[str, Any] = {"ssr_mode": False, "run_history": False, "pwa": False}
    limit = f"{workshop.limits.upload_mb}mb"
    gr.mount_gradio_app(app, blocks, "/", max_file_size=limit, allowed_paths=[str(workshop.folder)], **how)
    return Guard(app, hosts, password)


def _add_page(app: Any, workshop: Workshop, offered: dict[str, Sequence[Path]]) -> None:
    """The page, its parts, what it offers, what was made, and its socket."""
    from fastapi import HTTPException
    from fastapi.responses import FileResponse
    from fastapi.staticfiles import StaticFiles
    from starlette.routing import WebSocketRoute

    from export3d.studio.socket import serve

    files = {kind: {path.name: path for path in paths} for kind, paths in offered.items()}

    @app.get("/")
    async def page() -> Any:
        return FileResponse(PAGE / "index.html", headers={"content-security-policy": POLICY})

    @app.get("/studio/offered")
    async def offer() -> Any:
        names = {kind: list(paths) for kind, paths in files.items()}
        return {**names, "restricted": workshop.allowed is not None, "version": __version__}

    @app.get("/studio/offered/{kind}/{name}")
    async def one(kind: str, name: str) -> Any:
        path = files.get(kind, {}).get(name)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path)

    @app.get("/studio/made/{name}")
    async def made(name: str, called: str = "") -> Any:
        path = workshop.folder / Path(name).name
        if not path.is_file() or path.suffix not in MADE:
            raise HTTPException(404)
        return FileResponse(path, filename=Path(called).name or None)

    app.mount("/page", StaticFiles(directory=PAGE))
    app.router.routes.append(WebSocketRoute("/studio/socket", partial(serve, workshop=workshop)))
