"""Tests of MediaPipe as a face tracker, on scikit-image's photo of an astronaut."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from export3d.camera import Camera
from export3d.errors import MissingExtraError, NoFaceError, SeveralFacesError, UsageError
from export3d.tracking import Tracker
from export3d.tracking.faces import BLENDSHAPE_NAMES
from export3d.tracking.mediapipe_tracker import LANDMARKER_VARIABLE, MESH_TO_68, MediaPipeTracker
from export3d.tracking.standin import MeasuredCoefficients

pytest.importorskip("mediapipe")
data = pytest.importorskip("skimage.data")

LANDMARKER = os.environ.get(LANDMARKER_VARIABLE)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return data.astronaut()


@pytest.fixture(scope="module")
def tracker():
    made = MediaPipeTracker("") if LANDMARKER is None else _without_variable()
    yield made
    made.close()


def _without_variable() -> MediaPipeTracker:
    os.environ.pop(LANDMARKER_VARIABLE)
    try:
        return MediaPipeTracker()
    finally:
        os.environ[LANDMARKER_VARIABLE] = str(LANDMARKER)


def look(tracker, image):
    tracker.reset()
    return tracker.detect(np.ascontiguousarray(image))


def resized(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side)))


def test_the_astronauts_face_is_where_the_eye_sees_it(tracker, photo):
    (face,) = look(tracker, photo)
    points = face.landmarks_px
    # Read off an enlarged print of the photo, in pixels.
    seen = {8: (221, 177), 30: (224, 126), 36: (195, 101), 45: (256, 104), 48: (202, 139), 54: (245, 141)}
    for index, place in seen.items():
        assert np.linalg.norm(points[index] - place) < 4.0, index
    assert face.confidence > 0.8
    x0, y0, x1, y1 = face.box
    assert x0 < points[:, 0].min() and points[:, 0].max() < x1 + 1 and y0 < 75 and 170 < y1 < 190


def test_the_68_points_are_in_multi_pie_order(tracker, photo):
    points = look(tracker, photo)[0].landmarks_px
    assert len(set(MESH_TO_68)) == 68
    assert (np.diff(points[:17, 0]) > -2.0).all(), "jaw from image left to right"
    assert points[:17, 1].argmax() in (7, 8, 9), "the chin in the middle"
    assert (np.diff(points[17:27, 0]) > 0.0).all(), "brows from left to right"
    assert (np.diff(points[27:31, 1]) > 0.0).all() and (np.diff(points[31:36, 0]) > 0.0).all()
    for start in (36, 42):
        outer, upper, inner, lower = (
            points[start],
            points[start + 1 : start + 3],
            points[start + 3],
            points[start + 4 : start + 6],
        )
        assert outer[0] < upper[0, 0] < upper[1, 0] < inner[0] and lower[0, 0] > lower[1, 0]
        assert upper[:, 1].max() < lower[:, 1].min()
    assert points[17:27, 1].max() < points[36:48, 1].min(), "brows above eyes"
    assert points[51, 1] < points[62, 1] < points[66, 1] < points[57, 1], "outer and inner lips, from above"
    assert points[60, 0] < points[61, 0] < points[62, 0] < points[63, 0] < points[64, 0]
    assert points[48, 0] < points[49, 0] < points[50, 0] < points[51, 0] < points[52, 0] < points[53, 0] < points[54, 0]


def test_mirroring_the_photo_mirrors_the_points(tracker, photo):
    mirror = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), 35, 34, 33, 32, 31]
    points = look(tracker, photo)[0].landmarks_px
    mirrored = look(tracker, photo[:, ::-1])[0].landmarks_px
    back = mirrored[mirror] * [-1.0, 1.0] + [512.0, 0.0]
    assert np.linalg.norm(back - points[:36], axis=1).mean() < 2.0


@pytest.mark.parametrize("side", [128, 200, 1500, 4100])
def test_points_scale_with_the_photo(tracker, photo, side):
    base = look(tracker, photo)[0].landmarks_px / 512.0
    (face,) = look(tracker, resized(photo, side))
    assert np.linalg.norm(face.landmarks_px / side - base, axis=1).mean() < 0.006


def test_enlarging_the_photo_does_not_shift_the_points(tracker, photo):
    # A convention that counts from pixel centres instead of corners would show as half a pixel.
    base = look(tracker, resized(photo, 1536))[0].landmarks_px / 1536.0
    shifts = [(look(tracker, resized(photo, n))[0].landmarks_px - base * n).mean(axis=0) for n in (128, 192, 256, 384)]
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.2


def test_a_face_that_fills_the_picture_is_found(tracker, photo):
    (face,) = look(tracker, photo[80:190, 180:280])
    whole = look(tracker, photo)[0].landmarks_px - [180.0, 80.0]
    assert np.linalg.norm(face.landmarks_px - whole, axis=1).mean() < 2.5


def test_a_small_face_in_a_large_picture_is_found(tracker, photo):
    scene = np.full((1080, 1920, 3), 90, np.uint8)
    scene[300:520, 900:1120] = resized(photo, 220)
    (face,) = look(tracker, scene)
    expected = look(tracker, photo)[0].landmarks_px * (220.0 / 512.0) + [900.0, 300.0]
    assert np.linalg.norm(face.landmarks_px - expected, axis=1).mean() < 1.5


def test_pictures_without_faces_give_none(tracker, photo):
    assert look(tracker, np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)) == []
    assert look(tracker, np.zeros((64, 64, 3), np.uint8)) == []
    with pytest.raises(NoFaceError):
        Tracker(tracker, MeasuredCoefficients()).portrait(photo[300:, :150])


def test_two_faces_are_both_found_and_need_a_choice(tracker, photo):
    pair = np.concatenate([photo, photo[:, ::-1]], axis=1)
    with pytest.raises(SeveralFacesError, match=r"two\.png: 2 faces.*\n.*0: .*\n.*1: "):
        Tracker(tracker, MeasuredCoefficients()).portrait(pair, where="two.png")
    left, right = (Tracker(tracker, MeasuredCoefficients(), side).portrait(pair).crop for side in ("left", "right"))
    assert left.center_x == pytest.approx(1024.0 - right.center_x, abs=3.0)


def test_a_moving_face_is_followed(tracker, photo):
    followed = Tracker(tracker, MeasuredCoefficients())
    followed.reset()
    start = followed.frame(photo)
    for step in range(1, 6):
        tracked = followed.frame(np.roll(photo, (2 * step, 4 * step), axis=(0, 1)))
        assert tracked.found
        assert tracked.crop.center_x - start.crop.center_x == pytest.approx(4 * step, abs=2.0)
        assert tracked.crop.center_y - start.crop.center_y == pytest.approx(2 * step, abs=2.0)


def test_a_face_that_comes_back_is_found_again(tracker, photo):
    followed = Tracker(tracker, MeasuredCoefficients())
    followed.reset()
    empty = np.zeros_like(photo)
    assert [followed.frame(image).found for image in (photo, empty, empty, photo)] == [True, False, False, True]


def test_the_same_picture_after_a_reset_gives_the_same_points(tracker, photo):
    first, second = (look(tracker, photo)[0].landmarks_px for _ in range(2))
    assert np.array_equal(first, second)


def test_frames_of_another_type_are_refused(tracker):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\); got float32"):
        tracker.detect(np.zeros((64, 64, 3), np.float32))


def test_a_landmarker_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(
        UsageError, match=r"none.task: no such Face Landmarker file.*EXPORT3D_FACE_LANDMARKER"
    ) as caught:
        MediaPipeTracker(tmp_path / "none.task")
    assert caught.value.exit_code == 2


def test_a_file_that_is_no_landmarker_is_refused(tmp_path, photo):
    path = tmp_path / "bad.task"
    path.write_bytes(b"not a model")
    with pytest.raises(UsageError, match=r"bad.task: MediaPipe cannot load this as a Face Landmarker"):
        MediaPipeTracker(path).detect(photo)


@pytest.mark.skipif(LANDMARKER is None, reason=f"needs a Face Landmarker file: set {LANDMARKER_VARIABLE}")
def test_the_face_landmarker_gives_blendshapes_and_matrix(tracker, photo):
    full = MediaPipeTracker(LANDMARKER)
    (face,) = look(full, photo)
    assert len(BLENDSHAPE_NAMES) == 52 and face.blendshapes is not None and face.matrix is not None
    scores = dict(zip(BLENDSHAPE_NAMES, face.blendshapes, strict=True))
    assert scores["mouthSmileLeft"] > 0.5 and scores["jawOpen"] < 0.3 and scores["eyeBlinkLeft"] < 0.4
    assert face.matrix.shape == (4, 4) and np.allclose(face.matrix[3], [0, 0, 0, 1])
    assert np.linalg.norm(face.landmarks_px - look(tracker, photo)[0].landmarks_px, axis=1).mean() < 2.0
    assert full.info.name == "mediapipe-face-landmarker" and len(full.info.sha256) == 64
    full.close()


def test_without_mediapipe_the_error_names_the_extra_to_install():
    code = (
        "import sys; sys.modules['mediapipe'] = None\n"
        "from export3d.tracking.mediapipe_tracker import MediaPipeTracker\n"
        "from export3d.errors import MissingExtraError\n"
        "try:\n    MediaPipeTracker()\n"
        "except MissingExtraError as error:\n    print(error.exit_code, error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"{MissingExtraError.exit_code} ") and "pip install 'export3d[face]'" in out


def assert_silent(code: str) -> None:
    """The program ends well and writes nothing."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_mediapipe_is_silent_and_only_imported_when_it_is_used():
    code = (
        "import sys, export3d.tracking\n"
        "assert 'mediapipe' not in sys.modules\n"
        "from skimage.data import astronaut\n"
        "from export3d.tracking import Tracker\n"
        "with Tracker() as tracker:\n    tracker.portrait(astronaut()); tracker.frame(astronaut())\n"
    )
    assert_silent(code)


def test_no_thread_of_mediapipe_is_left_to_write_when_the_silence_ends():
    # A graph starts on threads of its own. On a busy machine they write their warnings late; a pause after each silence
    # gives them the time to be heard.
    code = (
        "import time, contextlib\n"
        "import export3d.tracking.mediapipe_tracker as module\n"
        "from skimage.data import astronaut\n"
        "silence = module._quiet\n"
        "@contextlib.contextmanager\n"
        "def and_a_pause():\n"
        "    with silence():\n        yield\n"
        "    time.sleep(0.3)\n"
        "module._quiet = and_a_pause\n"
        "tracker = module.MediaPipeTracker()\n"
        "assert tracker.detect(astronaut())\n"
        "tracker.reset()\n"
        "assert not tracker.detect(0 * astronaut())\n"
        "tracker.close()\n"
    )
    assert_silent(code)


def test_the_bundled_regressor_sees_the_astronaut_upright_and_near_frontal(tracker, photo):
    portrait = Tracker(tracker).portrait(photo)
    camera = Camera.from_vector(torch.from_numpy(portrait.camera)[None])
    yaw, pitch, roll = camera.head_angles()[0].rad2deg().tolist()
    # The line between the eyes falls by 3.5 degrees to the image right; she looks ahead, chin slightly up.
    assert abs(yaw) < 10.0 and abs(pitch) < 15.0 and -8.0 < roll < 0.0
    assert 2.2 < float(camera.cam_to_world[0, :3, 3].norm()) < 3.2
    assert np.abs(portrait.beta).max() < 10.0


def test_the_dense_mesh_belongs_to_the_points_at_any_size_and_place(tracker, photo):
    (face,) = look(tracker, photo)
    assert face.mesh is not None and face.mesh.shape == (478, 3) and face.mesh.dtype == np.float32
    assert np.array_equal(face.mesh[list(MESH_TO_68), :2], face.landmarks_px)
    nose, ear = face.mesh[1], face.mesh[234]
    assert nose[2] < ear[2]  # depth falls towards the viewer
    small = np.zeros((600, 800, 3), np.uint8)
    small[300:428, 500:628] = resized(photo, 128)
    (moved,) = look(tracker, small)  # found by way of the detector's box
    assert moved.mesh is not None
    assert np.array_equal(moved.mesh[list(MESH_TO_68), :2], moved.landmarks_px)
    depth = (moved.mesh[234, 2] - moved.mesh[1, 2]) / (ear[2] - nose[2])
    assert depth == pytest.approx(0.25, abs=0.05)


def test_the_bundled_regressor_sees_the_astronauts_smile_and_open_eyes(tracker, photo):
    from export3d.tracking.regressor import LandmarkRegressor

    regressor = LandmarkRegressor.load()
    portrait = Tracker(tracker, regressor).portrait(photo)
    angles = Camera.from_vector(torch.from_numpy(portrait.camera[None])).head_angles().rad2deg()
    assert float(angles.abs().max()) < 8.0  # she looks into the camera, the head a little to the side
    assert 0.4 < float(np.sqrt((portrait.beta**2).mean())) < 1.6
    by_points, _ = regressor.coefficients(portrait.landmarks[None])
    agreement = np.corrcoef(by_points[0, :10], portrait.beta[:10])[0, 1]
    assert agreement > 0.7  # two networks, one face
