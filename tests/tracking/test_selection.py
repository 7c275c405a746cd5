"""Tests of choosing and following faces."""

import numpy as np
import pytest

from export3d.errors import SeveralFacesError, UsageError
from export3d.tracking.faces import Face, box_overlap
from export3d.tracking.selection import choose_face, follow_face, nearest_face, parse_choice


def face(x0: float, y0: float, width: float, height: float) -> Face:
    box = np.array([x0, y0, x0 + width, y0 + height], dtype=np.float32)
    return Face(box=box, landmarks_px=np.zeros((68, 2), np.float32), confidence=0.9)


LEFT, MIDDLE, RIGHT = face(10, 20, 80, 100), face(200, 30, 120, 150), face(400, 10, 90, 110)
THREE = [RIGHT, LEFT, MIDDLE]


def test_choices_pick_the_face_they_name():
    assert choose_face(THREE, "largest", where="photo") is MIDDLE
    assert choose_face(THREE, "left", where="photo") is LEFT
    assert choose_face(THREE, "right", where="photo") is RIGHT
    assert [choose_face(THREE, n, where="photo") for n in range(3)] == [LEFT, MIDDLE, RIGHT]


def test_several_faces_and_no_choice_lists_the_faces_and_what_to_pass():
    with pytest.raises(SeveralFacesError) as caught:
        choose_face(THREE, None, where="photo.jpg")
    text = str(caught.value)
    assert text.startswith("photo.jpg: 3 faces, and no choice was made.")
    assert "0: 80x100 px at x 10, y 20" in text and "2: 90x110 px at x 400, y 10" in text
    assert "--face largest" in text and "--face left" in text and "--face right" in text
    assert caught.value.exit_code == 11


def test_people_far_behind_do_not_force_a_choice():
    far = face(500, 10, 30, 40)  # 40 px is less than a third of 150 px
    assert choose_face([far, MIDDLE], None, where="photo") is MIDDLE
    with pytest.raises(SeveralFacesError):
        choose_face([face(500, 10, 40, 51), MIDDLE], None, where="photo")


def test_a_number_that_no_face_has_is_refused():
    with pytest.raises(UsageError, match=r"--face 3 was asked for, but only 3 face\(s\) were found, numbered from 0"):
        choose_face(THREE, 3, where="photo")


@pytest.mark.parametrize(("text", "value"), [("largest", "largest"), ("2", 2), (1, 1), (None, None)])
def test_choices_are_read_from_text(text, value):
    assert parse_choice(text) == value


@pytest.mark.parametrize("text", ["biggest", "-1", "1.5", -1, ""])
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError, match="--face"):
        parse_choice(text)


def test_overlap_of_half_shifted_boxes_is_a_third():
    # 10x10 boxes shifted by 5: shared 50, together 150.
    a, b = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 15, 10])
    assert box_overlap(a, b) == pytest.approx(1.0 / 3.0)
    assert box_overlap(a, a) == pytest.approx(1.0)
    assert box_overlap(a, a + 20.0) == 0.0


def test_following_takes_the_overlapping_face_even_if_another_is_larger():
    assert follow_face(THREE, LEFT.box + 10.0) is LEFT
    assert follow_face(THREE, np.array([800.0, 800, 900, 900])) is None
    assert follow_face([], LEFT.box) is None


def test_a_lost_face_is_picked_up_nearest_to_where_it_was():
    assert nearest_face(THREE, LEFT.box + np.array([0, 400, 0, 400])) is LEFT
