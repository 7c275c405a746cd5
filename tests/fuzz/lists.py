"""Tables, lists, recordings and messages under attack: a good one made in code, and what the program does with one."""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from export3d.cli.batch import read_jobs
from export3d.errors import CertificateError, MotionFileError
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.shape.procedural import procedural_head
from export3d.images import open_picture
from export3d.preprocess.folder import read_csv
from export3d.preprocess.options import PrepareOptions
from export3d.preprocess.talkinghead import read_talkinghead
from export3d.preprocess.vfhq import read_vfhq
from export3d.provenance.allowed import AllowedSources
from export3d.provenance.certificate import LOCAL_FILE, load_credentials
from export3d.provenance.consent import consent_of
from export3d.provenance.finish import Finish
from export3d.provenance.folder import config_folder
from export3d.provenance.manifest import read_manifest
from export3d.provenance.options import ProvenanceOptions
from export3d.speech.sound import read_sound
from export3d.studio.api import read_as
from export3d.studio.face import Keyframe, Wish
from export3d.studio.socket import Client, pack, unpack
from export3d.studio.videos import Limits
from export3d.tracking.gaze import GazeMap
from export3d.tracking.head_fit import HeadFit
from export3d.tracking.live_link import Take
from export3d.tracking.mouth import MouthMap
from export3d.tracking.regressor import LandmarkRegressor
from export3d.tracking.vmc import VmcListener


def _take(folder: Path) -> Path:
    numbers = {"weights": np.full((4, 52), 0.25, np.float32), "head": np.zeros((4, 3), np.float32)}
    take = Take(gaze=np.zeros((4, 2), np.float32), time_s=np.arange(4) / 60, **numbers)
    take.save(folder / "a.csv")
    return folder / "a.csv"


def _text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.new("RGB", (40, 40), (90, 80, 70)).save(folder / "p.png")
        (folder / "v.mp4").write_bytes(b"film")
        (folder / name).write_text(content)
        return folder / name

    return make


def _jpeg(folder: Path) -> Path:
    Image.new("RGB", (48, 40), (90, 80, 70)).save(folder / "a.jpg")
    return folder / "a.jpg"


def _sound(folder: Path) -> Path:
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((9000 * np.sin(np.arange(1600) / 8)).astype("<i2").tobytes())
    return folder / "a.wav"


def _saved(load: Callable[[], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        load().save(folder / "a.safetensors")
        return folder / "a.safetensors"

    return make


def _signed(folder: Path) -> Path:
    path, own = folder / "a.png", _certificate(folder)
    finish = Finish(ProvenanceOptions(certificate=own, key=own))
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(finish.frame(noise)).save(path)
    finish.file(path, ".png")
    return path


def _verify(path: Path) -> None:
    state = read_manifest(path).state
    if state != "valid":
        raise CertificateError(state)


def _certificate(folder: Path) -> Path:
    with patch.dict(os.environ, EXPORT3D_CONFIG=str(folder)):
        load_credentials()  # which makes one
        return config_folder() / LOCAL_FILE


def _message(folder: Path) -> Path:
    wish = {"weights": {"jawOpen": 0.5}, "gaze": [1, 2], "turn": [1, 2, 3], "nearer": 1.1}
    header = {"do": "live", "n": 3, "options": {"relative": True, "strength": 1.0, "size": 256}, "wish": wish}
    (folder / "a").write_bytes(pack({**header, "keyframes": [{"time_s": 0.5, "wish": wish}]}, b"content"))
    return folder / "a"


def _answer(path: Path) -> None:
    header, content = unpack(path.read_bytes())
    read_as(Wish, header.get("wish") or {}, "face")
    read_as(list[Keyframe], header.get("keyframes"), "keyframes")
    if header.get("do") == "live":
        assert "went wrong" not in Client(None).do(header, content)[0]["error"]  # type: ignore[arg-type]


def _datagram(folder: Path) -> Path:
    def text(word: str) -> bytes:
        return word.encode() + bytes(4 - len(word) % 4)

    blend = text("/VMC/Ext/Blend/Val") + text(",sf") + text("jawOpen") + struct.pack(">f", 0.5)
    bone = text("/VMC/Ext/Bone/Pos") + text(",sfffffff") + text("Head") + struct.pack(">7f", 0, 0, 0, 0, 0.1, 0, 1)
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (blend, bone))
    (folder / "a").write_bytes(text("#bundle") + bytes(7) + b"\1" + parts)
    return folder / "a"


def _hear(path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    listener = VmcListener(f"vmc:{port}")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(path.read_bytes()[:60_000], ("127.0.0.1", port))
        if listener.listen() is None:
            raise MotionFileError("nothing of use")
        assert np.isfinite(listener.camera).all() and np.isfinite(listener.gaze).all()
    finally:
        listener.close()


def _webcam(path: Path) -> None:
    Limits().check_photo(path, "the photo")
    with open_picture(path.read_bytes(), "the webcam") as opened:
        np.array(opened.convert("RGB"))


META = "Video ID: a\nH: 720\nW: 1280\nFPS: 29.97\nFRAME INDEX X0 Y0 W H LM\n0 0" + " 5" * 14 + "\nCROP 10 10 50 50\n"
LAYOUT = replace(PrepareOptions(), size=64)

EVERY: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "take": (_take, Take.load),
    "jobs": (_text("a.csv", "source,driving,output,strength\np.png,v.mp4,a.mp4,1.2\n"), read_jobs),
    "videos": (
        _text("a.csv", "path,identity,split,start_s,end_s\nv.mp4,i,train,0.5,1.5\n"),
        lambda path: read_csv(path, LAYOUT),
    ),
    "vfhq": (_text("Clip+a+P0+C0+F1-9.txt", META), lambda path: read_vfhq(path.parent, LAYOUT)),
    "tubes": (
        _text("train_video_tubes.txt", "v_0001,720,1280,0,99,10,10,200,200\n"),
        lambda path: read_talkinghead(path.parent, LAYOUT),
    ),
    "allowed": (_text("a.txt", "# names\np.png\n" + "ab" * 32 + "\n"), AllowedSources.load),
    "consent": (_text("a.txt", "They agreed."), lambda path: consent_of(str(path))),
    "sound": (_sound, read_sound),
    "extractor": (_saved(lambda: LinearExtractor.build(procedural_head())), LinearExtractor.load),
    "gaze": (_saved(GazeMap.load), GazeMap.load),
    "mouth": (_saved(MouthMap.load), MouthMap.load),
    "head fit": (_saved(HeadFit.load), HeadFit.load),
    "regressor": (_saved(LandmarkRegressor.load), LandmarkRegressor.load),
    "webcam": (_jpeg, _webcam),
    "message": (_message, _answer),
    "datagram": (_datagram, _hear),
    "signed": (_signed, _verify),
    "certificate": (_certificate, lambda path: load_credentials(path, path)),
}
NEEDS = {"datagram": "pythonosc", "signed": "c2pa", "certificate": "cryptography", "message": "starlette"}
LISTS = {kind: pair for kind, pair in EVERY.items() if importlib.util.find_spec(NEEDS.get(kind, "av"))}
"""Kinds whose package is installed."""
SEALED = ("extractor", "gaze", "head fit", "regressor", "signed")
