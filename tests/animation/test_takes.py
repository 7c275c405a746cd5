"""Drivers that tell single weights alone: a take, and a real sender of the Virtual Motion Capture protocol over UDP."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.animation.drivers import open_driver
from export3d.animation.takes import LIVE_RATE, LiveDriver, TakeDriver
from export3d.animation.transfer import TransferOptions, transfer
from export3d.camera import Camera
from export3d.cli.animate import ending_with_driver
from export3d.errors import UsageError
from export3d.face_state import ARKIT_NAMES, FaceState
from export3d.portrait import WeightMaps
from export3d.tracking import Tracker
from export3d.tracking.live_link import Take
from export3d.tracking.vmc import VmcListener, rotation_of_unity

JAW, BROW = (ARKIT_NAMES.index(name) for name in ("jawOpen", "browInnerUp"))
OWN = FaceState(beta=torch.ones(1, 64), weights=torch.zeros(1, 52))
FRONTAL = Camera.look_at_head().to_vector()[0].numpy()


def no_tracker() -> Tracker:
    raise AssertionError("nothing is to be tracked")


def talk(rows: int = 8) -> Take:
    weights = np.zeros((rows, 52), np.float32)
    weights[4:, JAW] = 0.4
    head = np.zeros((rows, 3), np.float32)
    head[:, 0] = 0.2
    return Take(weights=weights, head=head, gaze=np.zeros((rows, 2), np.float32), time_s=np.arange(rows) / 50.0)


def maps() -> WeightMaps:
    """The jaw's weight is the first number of beta, less the portrait's own."""
    weight, rest = torch.zeros(64, 52), torch.full((1, 52), torch.nan)
    weight[0, JAW], rest[0, JAW] = 1.0, -1.0
    return WeightMaps(rest=rest, weight=weight, back=weight.T)


def moved(driver: TakeDriver, options: TransferOptions) -> list[FaceState]:
    frames = transfer(driver, options, own=OWN, camera=FRONTAL, time_base=driver.time_base, maps=maps())
    return [frame.state for frame in frames]


def test_a_take_plays_its_own_times_and_turns(tmp_path: Path) -> None:
    talk().save(tmp_path / "take.csv")
    driver = open_driver(tmp_path / "take.csv", no_tracker, expression_space="ict64")
    frames = list(driver)
    assert driver.fps == Fraction(50) and [frame.pts for frame in frames[:3]] == [0, 1800, 3600]
    camera = Camera.from_vector(torch.from_numpy(frames[0].camera)[None])
    assert camera.head_angles()[0].tolist() == pytest.approx([0.2, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize(
    "options", [TransferOptions(), TransferOptions(relative=True), TransferOptions(smooth_s=0.001)]
)
def test_its_weights_reach_the_portrait_and_beta_says_the_same(options: TransferOptions) -> None:
    states = moved(TakeDriver(talk()), options)
    for state in states:
        assert state.weights is not None and not bool(state.beta.isnan().any())
        assert state.beta[0, 0].item() - 1.0 == pytest.approx(state.weights[0, JAW].item())
        assert bool((state.beta[0, 1:] == 1.0).all())  # the portrait's own
    assert states[0].weights[0, JAW].item() == 0.0 and states[-1].weights[0, JAW].item() >= 0.4


def test_the_papers_model_refuses_a_driver_without_beta() -> None:
    own = replace(OWN, weights=None)
    with pytest.raises(UsageError, match="only the portrait model"):
        list(transfer(TakeDriver(talk()), TransferOptions(), own=own, camera=FRONTAL, time_base=Fraction(1, 90_000)))


class Sender:
    """Sends VMC messages to a port of this computer, over and over, until it is closed."""

    def __init__(self, *messages: tuple[str, list[object]], junk: bytes = b"") -> None:
        self.port = free_port()
        self._messages, self._junk = messages, junk
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        from pythonosc.udp_client import SimpleUDPClient

        client = SimpleUDPClient("127.0.0.1", self.port)
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while not self._ended.wait(0.005):
            if self._junk:
                raw.sendto(self._junk, ("127.0.0.1", self.port))
            for address, values in self._messages:
                client.send_message(address, values)
        raw.close()

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


HALF_TURN = 0.3  # radians
MESSAGES = (
    ("/VMC/Ext/Blend/Val", ["BrowInnerUp", 0.5]),
    ("/VMC/Ext/Blend/Val", ["jawOpen", 7.0]),
    ("/VMC/Ext/Blend/Val", ["Sparkles", 1.0]),
    ("/VMC/Ext/Blend/Val", ["EyeLookOutLeft", 1.0]),
    ("/VMC/Ext/Blend/Val", ["jawLeft", "much"]),
    ("/VMC/Ext/Blend/Apply", []),
    ("/VMC/Ext/Bone/Pos", ["Head", 0.0, 0.0, 0.0, 0.0, math.sin(HALF_TURN / 2), 0.0, math.cos(HALF_TURN / 2)]),
    ("/VMC/Ext/Bone/Pos", ["Neck", 0.0, 0.0, 0.0, float("nan"), 0.0, 0.0, 1.0]),
)


def test_a_sender_is_followed_until_it_is_asked_to_end() -> None:
    pytest.importorskip("pythonosc")
    with Sender(*MESSAGES, junk=b"/no osc") as sender:
        driver = open_driver(f"vmc:{sender.port}", no_tracker, expression_space="ict64")
        assert isinstance(driver, LiveDriver)
        frames = []
        for frame in driver:
            frames.append(frame)
            if len(frames) == 6:
                driver.finish()
        driver.close()
    last = frames[-1]
    assert last.state.weights is not None and last.found and bool(last.state.beta.isnan().all())
    assert last.state.weights[0, [BROW, JAW]].tolist() == [0.5, 1.0]  # cut to what a weight is
    assert all(b.pts > a.pts for a, b in pairwise(frames)) and driver.time_base == Fraction(1, LIVE_RATE)
    yaw, pitch, roll = Camera.from_vector(torch.from_numpy(last.camera)[None]).head_angles()[0].tolist()
    # In Unity a turn by a positive angle about y turns an avatar to its own right, which is the left of the picture.
    assert (yaw, pitch, roll) == pytest.approx((-HALF_TURN, 0.0, 0.0), abs=1e-5)
    assert last.state.gaze is not None and last.state.gaze[0, 0].item() == pytest.approx(0.25)
    assert "no OSC" in driver.problems[0]


def test_damaged_packets_are_counted_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pythonosc")
    port = free_port()
    listener = VmcListener(f"vmc:{port}")
    bundle = b"#bundle\0" + bytes(8) + (8).to_bytes(4, "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        for junk in (b"", b"secret", bundle + b"secret!!", bundle + bundle):
            raw.sendto(junk, ("127.0.0.1", port))
    assert listener.listen() is None and listener.damaged == 3
    listener.close()
    assert caplog.records == []


def test_a_sender_that_falls_silent_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pythonosc")
    monkeypatch.setattr("export3d.animation.takes.SILENT_S", 0.1)
    with Sender(*MESSAGES) as sender:
        driver = LiveDriver(f"vmc:{sender.port}")
        frames = iter(driver)
        assert next(frames).found
    time.sleep(0.2)
    while next(frames).found:  # what was still on its way
        time.sleep(0.1)
    driver.finish()
    assert list(frames) == []
    driver.close()


def test_ctrl_c_ends_a_live_film_and_leaves_other_work_to_be_stopped() -> None:
    pytest.importorskip("pythonosc")
    driver = LiveDriver(f"vmc:{free_port()}")
    with ending_with_driver(driver):
        os.kill(os.getpid(), signal.SIGINT)
        assert list(driver) == []
    driver.close()
    with pytest.raises(KeyboardInterrupt), ending_with_driver(TakeDriver(talk())):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", ["vmc:", "vmc:0", "vmc:70000", "vmc:here:there"])
def test_a_wrong_port_is_a_usage_error(name: str) -> None:
    pytest.importorskip("pythonosc")
    with pytest.raises(UsageError, match="expected vmc:PORT or vmc:ADDRESS:PORT"):
        open_driver(name, no_tracker, expression_space="ict64")


def test_a_port_that_is_taken_is_a_usage_error() -> None:
    pytest.importorskip("pythonosc")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UsageError, match="cannot listen there"):
            LiveDriver(f"vmc:{taken.getsockname()[1]}")


def test_unitys_turns_are_mirrored_into_our_axes() -> None:
    mirror = np.diag([-1.0, 1.0, 1.0])
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y, z, w = quaternion = rng.normal(size=4)
        unit = quaternion / np.linalg.norm(quaternion)
        x, y, z, w = unit
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        plain = np.eye(3) + 2 * w * skew + 2 * skew @ skew
        assert np.allclose(rotation_of_unity(quaternion), mirror @ plain @ mirror)
