"""Tests of `export3d track`: real clips in, motion files out, errors and their exit codes."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from export3d.animation import MotionDriver
from export3d.camera import Camera
from export3d.cli import main
from export3d.tracking import Motion
from export3d.tracking.brows import COLUMNS
from export3d.tracking.live_link import Take
from export3d.tracking.regressor import LandmarkRegressor

pytest.importorskip("mediapipe")
data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


def write_clip(path, frames, rate=Fraction(25)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast"}
        for image in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory, photo):
    """Ten frames at 29.97: a face that moves, and is away in frames 4 and 5."""
    frames = [np.roll(photo, 2 * step, axis=1) for step in range(10)]
    frames[4] = frames[5] = np.zeros_like(photo)
    return write_clip(tmp_path_factory.mktemp("clip") / "talk.mp4", frames, Fraction(30000, 1001))


def track(clip, output, *options):
    return main(["track", str(clip), "-o", str(output), *options])


def test_a_clip_becomes_a_motion_file(clip, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    assert track(clip, output) == 0
    line = capsys.readouterr().out
    assert "10 frames, 29.97 fps, face lost in 2, landmark-regressor 2 (ict64)" in line
    motion = Motion.load(output)
    assert len(motion) == 10 and motion.fps == Fraction(30000, 1001)
    assert motion.found.tolist() == [True] * 4 + [False] * 2 + [True] * 4
    assert np.allclose(motion.time_s, np.arange(10) * 1001 / 30000, atol=1e-3)
    assert motion.extractor == LandmarkRegressor.load().info
    assert motion.crop is not None
    steps = np.diff(motion.crop[:4, 0])
    assert np.abs(steps - 2.0).max() < 1.0, "the crop follows the face, two pixels a frame"
    assert np.array_equal(motion.beta[4], motion.beta[3])
    assert motion.confidence[0] > 0.7 and motion.confidence[4] == 0.0


def test_skip_leaves_the_lost_frames_out(clip, tmp_path):
    output = tmp_path / "m.safetensors"
    assert track(clip, output, "--on-lost", "skip", "--smooth") == 0
    motion = Motion.load(output)
    assert len(motion) == 8 and motion.found.all()
    assert np.diff(motion.time_s).max() == pytest.approx(3 * 1001 / 30000, abs=1e-3)


def failing(capsys, code, text, *arguments):
    assert main(["track", *map(str, arguments)]) == code
    error = " ".join(capsys.readouterr().err.split())
    assert text in error, error


def test_abort_stops_and_writes_nothing(clip, tmp_path, capsys):
    output = tmp_path / "m.safetensors"
    failing(capsys, 14, "talk.mp4: no face in frame 4 at 0.13 s", clip, "-o", output, "--on-lost", "abort")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_a_face(tmp_path, capsys):
    clip = write_clip(tmp_path / "empty.mp4", [np.full((64, 64, 3), 60, np.uint8)] * 3)
    failing(capsys, 10, "no face was found in any of its 3 frames", clip, "-o", tmp_path / "m.safetensors")


def test_two_faces_need_a_choice(tmp_path, capsys, photo):
    clip = write_clip(tmp_path / "two.mp4", [np.concatenate([photo, photo[:, ::-1]], axis=1)] * 3)
    output = tmp_path / "m.safetensors"
    failing(capsys, 11, "2 faces, and no choice was made", clip, "-o", output)
    assert track(clip, output, "--face", "right") == 0
    assert Motion.load(output).crop[0, 0] > 256.0
    failing(capsys, 2, "--face 5 was asked for, but only 2 face(s)", clip, "-o", output, "--face", "5")


def test_what_is_no_video(tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("not a video")
    failing(capsys, 21, "text.mp4", tmp_path / "text.mp4", "-o", tmp_path / "m.safetensors")
    failing(capsys, 21, "none.mp4", tmp_path / "none.mp4", "-o", tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("output", "code", "text"), [("m.npz", 2, "must end in .safetensors"), ("no/m.safetensors", 30, "does not exist")]
)
def test_bad_outputs_are_refused_before_tracking(clip, tmp_path, capsys, output, code, text):
    failing(capsys, code, text, clip, "-o", tmp_path / output)


def test_other_coefficients_say_which_file_they_need(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("EXPORT3D_FACE_LANDMARKER", raising=False)
    output = tmp_path / "m.safetensors"
    failing(capsys, 2, "give its checkpoint, --extractor", clip, "-o", output, "--coefficients", "deep3d")
    assert not output.exists()


def test_keeping_the_points_without_clips_is_refused(tmp_path, capsys):
    from export3d.cli import main

    assert main(["train-regressor", "-o", str(tmp_path / "r.safetensors"), "--keep-points"]) == 2
    assert "--keep-points trains on --data alone" in capsys.readouterr().err


def test_a_clip_becomes_a_take_that_says_the_same_as_the_motion_file(clip, tmp_path):
    assert track(clip, tmp_path / "m.safetensors") == 0 and track(clip, tmp_path / "take.csv") == 0
    motion, take = Motion.load(tmp_path / "m.safetensors"), Take.load(tmp_path / "take.csv")
    assert motion.weights is not None and motion.gaze is not None
    told = np.nan_to_num(motion.weights)
    told[:, COLUMNS] = (told - np.median(told, axis=0))[:, COLUMNS].clip(min=0.0)  # brows rest at 0
    lifted = told - told.min(axis=0).clip(max=0.0)  # a take has nothing below 0
    assert np.abs(lifted.clip(max=1.0) - take.weights).max() < 1e-4
    assert np.abs(motion.gaze - take.gaze).max() < 1e-4 and np.abs(motion.time_s - take.time_s).max() < 1e-4
    angles = Camera.from_vector(torch.from_numpy(motion.camera)).head_angles().numpy()
    assert np.abs(angles - take.head).max() < 1e-4


def test_a_motion_file_keeps_the_cuts_of_its_clip(photo, tmp_path):
    moved = np.ascontiguousarray(np.roll(photo[:, ::-1], 60, axis=0) // 2)
    clip = write_clip(tmp_path / "cut.mp4", [photo] * 4 + [moved] * 3)
    assert track(clip, tmp_path / "m.safetensors") == 0
    motion = Motion.load(tmp_path / "m.safetensors")
    assert motion.cut is not None and np.flatnonzero(motion.cut).tolist() == [4]
    assert [frame.index for frame in MotionDriver(motion) if frame.cut] == [4]
