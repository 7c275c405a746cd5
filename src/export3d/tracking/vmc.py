"""A listener to a running sender of the Virtual Motion Capture protocol (OSC over UDP): ARKit weights, head and eyes, live.

Unity's axes are x right, y up, z forward, left-handed, and an avatar looks along z; whoever looks at it sees x to the left. So
x is turned round, which makes the axes those of the rest of this program.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from typing import Any

import numpy as np

from export3d.camera import Camera
from export3d.errors import MissingExtraError, UsageError
from export3d.face_state import ARKIT_NAMES
from export3d.tracking.live_link import gaze_of_weights

SCHEME = "vmc"
_MAX_BYTES = 65_536

_COLUMNS = {name.lower(): [index] for index, name in enumerate(ARKIT_NAMES)}
_VRM = {
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    **{"blink_l": ("eyeBlinkLeft",), "blinkleft": ("eyeBlinkLeft",)},
    **{"blink_r": ("eyeBlinkRight",), "blinkright": ("eyeBlinkRight",)},
    **dict.fromkeys(("a", "aa"), ("jawOpen",)),
    **dict.fromkeys(("u", "ou"), ("mouthPucker",)),
    **dict.fromkeys(("o", "oh"), ("mouthFunnel",)),
    **dict.fromkeys(("i", "ih", "e", "ee"), ("mouthStretchLeft", "mouthStretchRight")),
    **dict.fromkeys(("joy", "happy"), ("mouthSmileLeft", "mouthSmileRight")),
}
_COLUMNS |= {name: [ARKIT_NAMES.index(part) for part in parts] for name, parts in _VRM.items()}
"""Lower-case name of a blend shape -> the weights that it sets: ARKit's names ("perfect sync"), else VRM's own."""

_BONES = ("Neck", "Head", "LeftEye", "RightEye")


class VmcListener:
    """The last value of everything that a sender says. The socket is read when `listen` is called, so there is no thread.

    Args:
        name: `vmc:PORT` hears senders on this computer, `vmc:ADDRESS:PORT` those that reach that address of it.

    Raises:
        UsageError: No such address, or another program listens there.
        MissingExtraError: python-osc is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            from pythonosc.osc_packet import OscPacket, ParseError
        except ImportError as error:
            raise MissingExtraError(
                f"{name}: VMC needs python-osc, which is not installed. Install it with: pip install 'export3d[live]'"
            ) from error
        logging.getLogger().addFilter(_is_no_packet)
        self._parse, self._damage = OscPacket, ParseError
        host, port = _address(name)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"{name}: cannot listen there ({error.strerror or error}). Choose another port, or end what uses it."
            ) from error
        self._socket.setblocking(False)
        self.weights = np.zeros(len(ARKIT_NAMES), np.float32)  # order of `ARKIT_NAMES`, in [0, 1]
        self._turns = {bone: np.eye(3) for bone in _BONES}
        self._heard: float | None = None
        self.damaged = 0  # packets that are no OSC

    def close(self) -> None:
        """Free the port."""
        self._socket.close()

    def listen(self) -> float | None:
        """Take in every packet that has come; when the last one of use came (`time.monotonic`), None before the first."""
        with suppress(BlockingIOError):
            while True:
                packet = self._socket.recv(_MAX_BYTES)
                try:
                    messages = [timed.message for timed in self._parse(packet).messages]
                except (self._damage, ValueError, IndexError, UnicodeDecodeError):
                    self.damaged += 1
                    continue
                for message in messages:
                    self._take(message.address, list(message.params))
        return self._heard

    def _take(self, address: str, given: list[Any]) -> None:
        kinds = {"/VMC/Ext/Blend/Val": (2, 1), "/VMC/Ext/Bone/Pos": (8, 7)}
        if address not in kinds:
            return
        length, numbers = kinds[address]
        values = given[1:length]
        if len(given) < length or not isinstance(given[0], str) or not all(isinstance(v, float | int) for v in values):
            return
        array = np.array(values, dtype=np.float64)
        if len(array) != numbers or not np.isfinite(array).all():
            return
        self._heard = time.monotonic()
        if address.endswith("Val"):
            self.weights[_COLUMNS.get(given[0].lower(), [])] = float(np.clip(array[0], 0.0, 1.0))
        elif given[0] in self._turns and np.linalg.norm(array[3:]) > 0.1:
            self._turns[given[0]] = rotation_of_unity(array[3:])

    @property
    def gaze(self) -> np.ndarray:
        """``(2,)`` radians, sideways (+ to the image right) and up: the bones of the eyes, else the eyeLook weights."""
        eyes = [self._turns[name] for name in ("LeftEye", "RightEye")]
        if all(np.allclose(eye, np.eye(3)) for eye in eyes):
            return gaze_of_weights(self.weights[None])[0]
        yaw, pitch, _ = np.mean([angles_of(eye) for eye in eyes], axis=0)
        return np.array([yaw, -pitch])

    @property
    def camera(self) -> np.ndarray:
        """``(25,)`` float32: a camera that sees the head turned as neck and head say."""
        yaw, pitch, roll = angles_of(self._turns["Neck"] @ self._turns["Head"]).tolist()
        return Camera.look_at_head(yaw, pitch, roll).to_vector()[0].numpy()


def _is_no_packet(record: logging.LogRecord) -> bool:
    """Whether a line of the log is of others than python-osc, which would show each damaged packet."""
    return not record.module.startswith("osc_")


def rotation_of_unity(quaternion: np.ndarray) -> np.ndarray:
    """Unity's rotation x, y, z, w -> ``(3, 3)`` in axes with x to the right of who looks at the face, y up, z towards them."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    y, z = -y, -z  # mirrored in x, a turn keeps its part about x and reverses the others
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def angles_of(rotation: np.ndarray) -> np.ndarray:
    """``(3,)`` yaw, pitch, roll of a rotation ``(3, 3)``: the inverse of `camera.head_rotation`."""
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[1, 2], -1.0, 1.0))
    return np.array([yaw, pitch, np.arctan2(rotation[1, 0], rotation[1, 1])])


def _address(name: str) -> tuple[str, int]:
    """`vmc:39539` -> ("127.0.0.1", 39539); `vmc:0.0.0.0:39539` hears the whole network."""
    host, _, port = name.removeprefix(f"{SCHEME}:").rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise UsageError(f"--driving {name}: expected vmc:PORT or vmc:ADDRESS:PORT with a port from 1 to 65535.")
    return host or "127.0.0.1", int(port)
