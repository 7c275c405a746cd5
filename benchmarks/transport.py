"""What carries the pictures of a webcam to a server and back: one WebSocket with JPEG, WebRTC (aiortc), Gradio's own stream.

    pip install aiortc      # for this comparison alone; the project does not use it
    python benchmarks/transport.py --save

No model: the server takes each picture of 512 x 512 apart into pixels, and sends the pixels back. Chromium shows what comes,
with a clip in place of a webcam at 30 pictures a second; browser and server share the machine's cores. Each picture of the
clip bears its number as black and white squares, which the page reads off the webcam and off what comes back: the delay is the
time between. The WebSocket way is the studio's: its own page script and messages, two on the way at most. Rounds in turn,
medians. CPU is for each picture that is shown; server and browser apart. About three minutes.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Error
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from export3d.cli.demo import samples_folder
from export3d.studio.live import jpeg
from export3d.studio.server import PAGE
from export3d.studio.socket import pack, unpack
from export3d.video import VideoReader
from material import save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "studio"))
from browser import browser, write_y4m

PORT = 7981
SIDE, SQUARE, BITS = 512, 48, 7
SETTLING_S, LASTING_S = 4.0, 10.0

READING = """
window.seen = new Map(); window.back = [];
const pen = new OffscreenCanvas(%(bits)d, 1).getContext("2d", { willReadFrequently: true });
window.number = (picture, width) => {
  const k = width / %(side)d;
  const [x, y, wide] = [16 * k, (%(side)d - 32) * k, 16 * k];
  for (let i = 0; i < %(bits)d; i++) pen.drawImage(picture, x + i * %(square)d * k, y, wide, wide, i, 0, 1, 1);
  const { data } = pen.getImageData(0, 0, %(bits)d, 1);
  let n = 0;
  for (let i = 0; i < %(bits)d; i++) n |= (data[4 * i + 1] > 128) << i;
  return n;
};
window.watch = (video, told) => {
  const next = () => { told(number(video, video.videoWidth), video.videoWidth); video.requestVideoFrameCallback(next); };
  video.requestVideoFrameCallback(next);
};
window.sent = (n) => { if (n !== window.last) seen.set(window.last = n, performance.now()); };
window.came = (n, width) => {
  if (seen.has(n)) back.push([performance.now(), performance.now() - seen.get(n), width]);
  seen.delete(n);
};
"""
"""Reads a picture's number; keeps when it was seen at the webcam, and when it came back."""

SOCKET_PAGE = """<video id="webcam" muted></video><canvas id="shown"></canvas><script type="module">
import { line, show } from "./page/line.js";
const [video, shown] = ["webcam", "shown"].map((id) => document.getElementById(id));
video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 512, height: 512 } });
await video.play();
watch(video, sent);
let waiting = 0;
const next = async () => {
  video.requestVideoFrameCallback(next);
  if (waiting >= 2) return;
  waiting += 1;
  const canvas = new OffscreenCanvas(512, 512);
  canvas.getContext("2d").drawImage(video, 0, 0, 512, 512);
  const answer = await line.send("frame", {}, await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 }));
  waiting -= 1;
  await show(shown, answer.content);
  came(number(shown, shown.width), shown.width);
};
video.requestVideoFrameCallback(next);
</script>"""

WEBRTC_PAGE = """<video id="webcam" muted></video><video id="shown" muted autoplay></video><script type="module">
const [video, shown] = ["webcam", "shown"].map((id) => document.getElementById(id));
const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 512, height: 512 } });
video.srcObject = stream;
await video.play();
watch(video, sent);
const [track] = stream.getTracks(), peer = new RTCPeerConnection();
track.contentHint = "detail";  // the rate may fall, the size not
peer.ontrack = ({ streams }) => { shown.srcObject = streams[0]; watch(shown, came); };
peer.addTrack(track, stream);
await peer.setLocalDescription(await peer.createOffer());
await new Promise((done) => { peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done(); });
const reply = await fetch("offer", { method: "POST", body: JSON.stringify(peer.localDescription) });
await peer.setRemoteDescription(await reply.json());
</script>"""

GRADIO_WATCH = """() => {
  const timer = setInterval(() => {
    const video = document.querySelector("#given video"), picture = document.querySelector("#made img");
    if (!video || !picture || !video.videoWidth) return;
    clearInterval(timer);
    watch(video, sent);
    picture.addEventListener("load", () => came(number(picture, picture.naturalWidth), picture.naturalWidth));
  }, 100);
}"""


def main() -> None:
    """Measure, print, save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of ten seconds for each way")
    parser.add_argument("--save", action="store_true", help="write results/transport.json")
    options = parser.parse_args()
    if find_spec("aiortc") is None:
        sys.exit("This needs aiortc. Run: pip install aiortc")
    load = os.getloadavg()[0]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder, browser(write_clip(Path(folder) / "clip.y4m")) as found:
        for _ in range(options.rounds):
            for name in WAYS:
                rounds[name].append(measured(found, name))
                print(name, rounds[name][-1], flush=True)
    rows = {name: {key: median(row[key] for row in each) for key in each[0]} for name, each in rounds.items()}
    print("medians:", rows)
    if options.save:
        versions = {name: __import__(name).__version__ for name in ("aiortc", "gradio", "starlette")}
        facts = {
            "unit": "pictures a second, ms, CPU-ms a picture, pixels",
            "versions": versions,
            "load_before": round(load, 2),
        }
        print(f"saved {save('transport', {**facts, 'rows': rows})}")


def write_clip(path: Path) -> Path:
    """The bundled clip at 512 x 512, each picture with its number."""
    frames = []
    with VideoReader(samples_folder() / "driving.mp4") as reader:
        for index, frame in enumerate(reader):
            image = np.array(Image.fromarray(frame.image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for bit in range(BITS):
                image[-SQUARE:, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (index >> bit & 1)
            frames.append(image)
    return write_y4m(path, frames[: 1 << BITS], fps=30)


def measured(chromium: Any, name: str) -> dict[str, float]:
    """One way, after it has settled."""
    server = multiprocessing.get_context("spawn").Process(target=WAYS[name], daemon=True)
    server.start()
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(READING % {"bits": BITS, "side": SIDE, "square": SQUARE})
    try:
        opened(page)
        if name == "gradio":
            page.locator("#given button:visible").first.click()  # asks for the camera
            page.evaluate(GRADIO_WATCH)
            page.wait_for_selector("#given video")
            page.click("#given [aria-label='capture photo']")
        end = time.monotonic() + 30.0
        while not page.evaluate("() => back.length") and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(SETTLING_S)
        begun, start = cpu_s(server.pid), page.evaluate("() => { back.length = 0; return performance.now(); }")
        time.sleep(LASTING_S)
        used, (now, back) = cpu_s(server.pid), page.evaluate("() => [performance.now(), back]")
    finally:
        page.close()
        server.terminate()
        server.join()
    return {
        "pictures_per_s": round(1000 * len(back) / (now - start), 2),
        "delay_ms": round(median(each[1] for each in back), 1),
        "server_ms": round(1000 * (used[0] - begun[0]) / len(back), 1),
        "browser_ms": round(1000 * (used[1] - begun[1]) / len(back), 1),
        "width_px": median(each[2] for each in back),
    }


def opened(page: Any) -> Any:
    """Open the page when the server answers."""
    end = time.monotonic() + 60.0
    while True:
        try:
            return page.goto(f"http://127.0.0.1:{PORT}/")
        except Error:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def cpu_s(server: int | None) -> tuple[float, float]:
    """CPU-seconds so far of the server, and of all other processes below this one: the browser and what drives it."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                facts = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            process = int(folder.name)
            parents[process], used[process] = int(facts[1]), sum(map(int, facts[11:13])) / os.sysconf("SC_CLK_TCK")

    def below(process: int, ancestor: int | None) -> bool:
        return process == ancestor or (process in parents and below(parents[process], ancestor))

    of_server, of_all = (sum(s for p, s in used.items() if below(p, top)) for top in (server, os.getpid()))
    return of_server, of_all - of_server


def served(routes: list[Any], page: str) -> None:
    """Serve these and the page on this computer until the process ends."""
    import uvicorn

    async def given(request: Request) -> HTMLResponse:
        return HTMLResponse(page)

    app = Starlette(routes=[Route("/", given), *routes])
    uvicorn.run(app, port=PORT, log_level="error", ws_max_size=1 << 25)


def by_socket() -> None:
    """The studio's messages: JPEG there, JPEG back."""

    async def back(connection: Any) -> None:
        await connection.accept()
        try:
            while True:
                header, content = unpack(await connection.receive_bytes())
                image = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
                await connection.send_bytes(pack({"did": "frame", "n": header["n"]}, jpeg(image)))
        except WebSocketDisconnect:
            return

    served([Mount("/page", StaticFiles(directory=PAGE)), WebSocketRoute("/studio/socket", back)], SOCKET_PAGE)


def by_webrtc() -> None:
    """aiortc: a track that gives the pixels of another back."""
    from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
    from av import VideoFrame

    peers = []

    class Back(VideoStreamTrack):
        def __init__(self, track: Any) -> None:
            super().__init__()
            self._track = track

        async def recv(self) -> Any:
            frame = await self._track.recv()
            made = VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            made.pts, made.time_base = frame.pts, frame.time_base
            return made

    async def offer(request: Request) -> JSONResponse:
        peer = RTCPeerConnection()
        peers.append(peer)
        peer.on("track", lambda track: peer.addTrack(Back(track)))
        await peer.setRemoteDescription(RTCSessionDescription(**await request.json()))
        await peer.setLocalDescription(await peer.createAnswer())
        return JSONResponse({"sdp": peer.localDescription.sdp, "type": peer.localDescription.type})

    served([Route("/offer", offer, methods=["POST"])], WEBRTC_PAGE)


def by_gradio() -> None:
    """Gradio's image component as a webcam that streams, and another that shows what the function gives."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as blocks:
        plain = gr.WebcamOptions(mirror=False, constraints={"video": {"width": SIDE, "height": SIDE}})
        given = gr.Image(
            sources=["webcam"], streaming=True, webcam_options=plain, elem_id="given", height=SIDE, width=SIDE
        )
        made = gr.Image(streaming=True, format="jpeg", elem_id="made", height=SIDE, width=SIDE)
        given.stream(lambda image: image, [given], [made], stream_every=1 / 30, time_limit=None, concurrency_limit=2)
    blocks.launch(server_port=PORT, quiet=True, ssr_mode=False)


WAYS = {"websocket": by_socket, "webrtc": by_webrtc, "gradio": by_gradio}


if __name__ == "__main__":
    main()
