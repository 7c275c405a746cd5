"""`export3d studio`: the page in the browser, and the same over HTTP."""

from __future__ import annotations

import logging
import os
import threading
import webbrowser
from dataclasses import dataclass, field, replace
from pathlib import Path

from export3d.cli.common import entry, say
from export3d.cli.network import ExtractorOptions, NetworkOptions, open_tracker
from export3d.cli.provenance import allowed_sources, find_consent
from export3d.errors import OutputError, UsageError
from export3d.provenance import ProvenanceOptions

_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Open the studio: animate, drive a portrait live with a webcam, change a face by hand, turn it in 3D, check files.

    Everything runs on this computer; nothing is sent elsewhere. End it with Ctrl-C.
    """

    port: int = 7860
    """Where the page is served: http://127.0.0.1:PORT."""

    host: str = "127.0.0.1"
    """Address to serve on; 0.0.0.0 lets other computers in: give --password then."""

    password: str | None = None
    """Ask for this password (any user name). The environment variable EXPORT3D_PASSWORD does the same, unseen by others."""

    sources: Path | None = None
    """Only the portraits of this folder may be animated, as for a public demonstration."""

    api_only: bool = False
    """Serve the HTTP interface without the page."""

    browser: bool = True
    """Open the page; --no-browser does not."""

    max_seconds: float = 120.0
    """Longest clip and longest recording."""

    max_upload: int = 200
    """Largest file, MB."""

    max_clients: int = 16
    """Pages that may be open at once."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Which model, and where it runs."""

    reads: ExtractorOptions = field(default_factory=ExtractorOptions)
    """What reads beta off a face."""

    provenance: ProvenanceOptions = field(default_factory=lambda: ProvenanceOptions(label="AI-generated"))
    """Label (here on by default), mark, signed manifest, consent, allowed portraits."""


def run(options: StudioOptions) -> None:
    """Serve until Ctrl-C."""
    # Imported here: `export3d studio --help` should not wait for PyTorch.
    import uvicorn

    from export3d.cli.demo import sample_portraits, samples_folder
    from export3d.portrait.loading import checkpoint_path
    from export3d.studio.server import LOCAL, build_app
    from export3d.studio.videos import Limits
    from export3d.studio.workshop import Workshop

    _check(options)
    provenance = replace(options.provenance, consent=find_consent(options.provenance))
    allowed = allowed_sources(options.sources or provenance.allow)
    listener = _listen(options.host, options.port)
    model = options.network.load()
    workshop = Workshop(
        model,
        lambda: open_tracker(options.reads, model, "largest"),
        limits=Limits(upload_mb=options.max_upload, seconds=options.max_seconds, clients=options.max_clients),
        allowed=allowed,
        provenance=provenance,
        model_path=checkpoint_path(options.network.model),
    )
    try:
        app = build_app(
            workshop,
            samples=sample_portraits() if allowed is None else _portraits(options.sources or provenance.allow),
            clips=[samples_folder() / "driving.mp4"],
            password=options.password or os.environ.get("EXPORT3D_PASSWORD"),
            api_only=options.api_only,
            hosts=LOCAL if options.host in LOCAL else None,
        )
        address = f"http://{'127.0.0.1' if options.host in ('0.0.0.0', '::') else options.host}:{options.port}/"
        say(f"Export3D studio: {address}  (Ctrl-C ends it)")
        if options.browser and not options.api_only:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", ws_max_size=1 << 25, timeout_graceful_shutdown=2, ws="auto")
        )
        server.run(sockets=[listener])
    finally:
        workshop.close()


studio_main = entry("studio", StudioOptions, run)


def _check(options: StudioOptions) -> None:
    if not 0 < options.port < 65536:
        raise UsageError(f"--port must be from 1 to 65535; got {options.port}.")
    if options.max_seconds <= 0 or options.max_upload < 1 or options.max_clients < 1:
        raise UsageError("--max-seconds, --max-upload and --max-clients must be above 0.")
    if options.sources is not None and options.provenance.allow is not None:
        raise UsageError("--sources and --allow say the same; give one of them.")


def _listen(host: str, port: int):
    """A socket that listens there; found before the model is loaded."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OutputError(
            f"--host {host} --port {port}: cannot be served there ({error.strerror}). Choose another with --port."
        ) from error
    return listener


def _portraits(folder: Path | None) -> list[Path]:
    """The pictures of a folder that the page shows; of a list none."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
