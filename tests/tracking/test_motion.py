"""Tests of the motion file."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export3d.camera import Camera
from export3d.errors import MotionFileError, OutputError
from export3d.tensor_files import SEAL, content_digest
from export3d.tracking.faces import ExtractorInfo
from export3d.tracking.motion import Motion


@pytest.fixture
def motion() -> Motion:
    rng = np.random.default_rng(0)
    frames = 7
    return Motion(
        beta=rng.normal(size=(frames, 64)).astype(np.float32),
        camera=np.repeat(Camera.look_at_head().to_vector().numpy(), frames, axis=0),
        confidence=rng.random(frames).astype(np.float32),
        found=np.array([True, True, False, True, True, True, True]),
        landmarks=rng.random((frames, 68, 2)).astype(np.float32),
        time_s=np.arange(frames) * 1001 / 30000,
        fps=Fraction(30000, 1001),
        extractor=ExtractorInfo("test", "3", "abc", "ict64"),
        crop=rng.random((frames, 3)).astype(np.float32),
    )


def resealed(arrays, path, header):
    """Write other contents with a valid checksum, as another program would."""
    save_file(arrays, path, {**header, SEAL: content_digest(header, arrays)})


def metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        return dict(opened.metadata())


def test_a_saved_motion_comes_back_bit_for_bit(tmp_path, motion):
    motion.save(tmp_path / "m.safetensors")
    back = Motion.load(tmp_path / "m.safetensors")
    for name in ("beta", "camera", "confidence", "found", "landmarks", "time_s", "crop"):
        assert np.array_equal(getattr(back, name), getattr(motion, name)), name
    assert back.fps == Fraction(30000, 1001) and back.extractor == motion.extractor and len(back) == 7


def test_gaze_comes_back_with_its_unknown_frames(tmp_path, motion):
    gaze = np.array([[0.1, -0.2]] * 6 + [[np.nan, np.nan]], dtype=np.float32)
    replace(motion, gaze=gaze).save(tmp_path / "m.safetensors")
    assert np.array_equal(Motion.load(tmp_path / "m.safetensors").gaze, gaze, equal_nan=True)


def test_a_file_of_version_1_has_no_gaze_and_stays_readable(tmp_path, motion):
    path = tmp_path / "m.safetensors"
    motion.save(path)  # without gaze the arrays are those of version 1
    resealed(load_file(path), path, {**metadata(path), "version": "1"})
    back = Motion.load(path)
    assert back.gaze is None and np.array_equal(back.beta, motion.beta)


@pytest.mark.parametrize("pair", [(0.1, np.nan), (np.inf, 0.0)])
def test_half_a_gaze_is_refused(motion, pair):
    gaze = np.zeros((7, 2), dtype=np.float32)
    gaze[3] = pair
    with pytest.raises(ValueError, match="gaze must be two finite numbers, or two NaN"):
        replace(motion, gaze=gaze)


def test_the_crop_is_optional(tmp_path, motion):
    replace(motion, crop=None).save(tmp_path / "m.safetensors")
    assert Motion.load(tmp_path / "m.safetensors").crop is None


def test_saving_leaves_no_temporary_file_and_replaces_whole(tmp_path, motion):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    motion.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
    assert len(Motion.load(path)) == 7


def test_a_missing_folder_is_an_output_error_with_exit_code_30(tmp_path, motion):
    with pytest.raises(OutputError, match="cannot be written") as caught:
        motion.save(tmp_path / "nowhere" / "m.safetensors")
    assert caught.value.exit_code == 30


def check_refused(path, text):
    with pytest.raises(MotionFileError, match=text) as caught:
        Motion.load(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 22


def test_a_missing_file_says_how_to_make_one(tmp_path):
    check_refused(tmp_path / "none.safetensors", "no such motion file. Track the clip again: export3d track")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"this is not a motion file at all")
    check_refused(path, "not a readable safetensors file")


def test_a_truncated_file_is_refused(tmp_path, motion):
    path = tmp_path / "m.safetensors"
    motion.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    check_refused(path, "not a readable safetensors file")


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path, {"format": "export3d-model"})
    check_refused(path, "expected format 'export3d-motion', version 1 or 2 or 3 or 4 or 5; got 'export3d-model'")


def test_a_newer_version_is_refused(tmp_path, motion):
    path = tmp_path / "m.safetensors"
    motion.save(path)
    resealed(load_file(path), path, {**metadata(path), "version": "6"})
    check_refused(path, "version 1 or 2 or 3 or 4 or 5; got 'export3d-motion', version 6. Upgrade export3d")


def test_missing_and_unknown_arrays_are_named(tmp_path, motion):
    path = tmp_path / "m.safetensors"
    motion.save(path)
    header, arrays = metadata(path), load_file(path)
    del arrays["camera"]
    arrays["mood"] = np.zeros(7, np.float32)
    resealed(arrays, path, header)
    check_refused(path, "missing: camera; unknown: mood")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("beta", np.zeros((7, 63), np.float32), r"beta must be float32 of shape \(7, 64\); got float32 \(7, 63\)"),
        ("confidence", np.zeros(7, np.float64), "confidence must be float32"),
        ("time_s", np.zeros(7), "time_s does not increase"),
        ("camera", np.full((7, 25), np.nan, np.float32), "camera holds a value that is not finite, first in frame 0"),
        ("beta", np.zeros((0, 64), np.float32), "beta holds no frames"),
    ],
)
def test_wrong_contents_are_named_in_the_file_and_in_memory(tmp_path, motion, name, value, text):
    with pytest.raises(ValueError, match=text):
        replace(motion, **{name: value})
    path = tmp_path / "m.safetensors"
    motion.save(path)
    resealed(load_file(path) | {name: value}, path, metadata(path))
    check_refused(path, text)


@pytest.mark.parametrize("fps", ["30/0", "fast", None])
def test_a_damaged_header_is_refused(tmp_path, motion, fps):
    path = tmp_path / "m.safetensors"
    motion.save(path)
    header = metadata(path)
    if fps is None:
        del header["extractor"]
    else:
        header["fps"] = fps
    resealed(load_file(path), path, header)
    check_refused(path, "of the header are missing or damaged")


def test_another_expression_space_is_refused_with_both_names(motion):
    motion.require_space("ict64")
    with pytest.raises(MotionFileError, match=r"expression space 'ict64'.*the model expects 'bfm64'"):
        motion.require_space("bfm64", where="m.safetensors")
