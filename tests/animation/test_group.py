"""Several faces of one photograph: who is driven by whom, and what of the photograph changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clips import clip_facts, face_points, make_clip
from cutouts import a_head, a_person, a_photo, share_in
from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions
from export3d.animation.group import _together, animate_group, check_drivers, find_everyone
from export3d.animation.paste import pasteboard
from export3d.errors import FaceTooSmallError, UsageError
from export3d.portrait import PortraitModel
from export3d.tracking import Crop, LostFaces, Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients

CROPS = (Crop(60.0, 70.0, 90.0), Crop(150.0, 80.0, 70.0))
FACES = [face_points((60.0, 80.0), 30.0), face_points((180.0, 80.0), 30.0), face_points((230.0, 20.0), 8.0)]


def tracker_of(*frames: list[np.ndarray]) -> Tracker:
    return Tracker(GivenLandmarks(frames), MeasuredCoefficients(), size=32)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "group.png"
    Image.fromarray(a_photo(180, 260)).save(path)
    return path


@pytest.fixture
def everyone(
    tiny_model: PortraitModel, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Animator], list[str]]:
    monkeypatch.setattr("export3d.animation.person.find_person", lambda image, crop: share_in(image, crop))
    return find_everyone(Animator(tiny_model, tracker_of(FACES), framing="photo"), photo, None)


def a_driver(path: Path, num_frames: int, *, fps: int = 25, mouth: float = 0.1) -> ClipDriver:
    clip = make_clip(path, num_frames=num_frames, fps=fps)
    return ClipDriver(clip, tracker_of(*([face_points((80, 80), 40, mouth + 0.02 * k)] for k in range(num_frames))))


def together(animators: list[Animator], drivers: list[ClipDriver]) -> list[list[object]]:
    how = {"motion": [TransferOptions(shift=False)] * len(drivers), "rigid": False}
    return [list(each) for each in _together(animators, drivers, LostFaces("hold", name="x"), **how)]  # type: ignore[arg-type]


def test_everyone_is_found_from_left_to_right_and_who_is_too_small_is_named(
    everyone: tuple[list[Animator], list[str]],
) -> None:
    animators, left_out = everyone
    centres = [a.subject.crop.center_x for a in animators if a.subject is not None]
    assert len(centres) == 2 and centres[0] < 100 < centres[1]
    assert len(left_out) == 1 and "face 2 is left out" in left_out[0]


def test_chosen_faces_are_taken_and_one_that_is_too_small_is_refused(
    tiny_model: PortraitModel, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export3d.animation.person.find_person", lambda image, crop: share_in(image, crop))
    animator = Animator(tiny_model, tracker_of(FACES), framing="photo")
    (one,), _ = find_everyone(animator, photo, [1])
    assert one.subject is not None and one.subject.crop.center_x > 100
    with pytest.raises(FaceTooSmallError):
        find_everyone(animator, photo, [0, 2])
    with pytest.raises(UsageError, match="only 3 face"):
        find_everyone(animator, photo, [7])


def test_each_face_has_its_own_driver_on_the_first_ones_clock(
    everyone: tuple[list[Animator], list[str]], tmp_path: Path
) -> None:
    animators, _ = everyone
    drivers = [a_driver(tmp_path / "a.mp4", 8), a_driver(tmp_path / "b.mp4", 4, fps=50, mouth=0.3)]
    made = together(animators, drivers)
    own = a_driver(tmp_path / "a2.mp4", 8), a_driver(tmp_path / "b2.mp4", 4, mouth=0.3)
    alone = [together(animators[k : k + 1], [own[k]]) for k in (0, 1)]
    assert len(made) == 8
    for index, (first, second) in enumerate(made):
        assert torch.equal(first.state.beta, alone[0][index][0].state.beta)  # type: ignore[attr-defined]
        other = alone[1][min(2 * index, 3)][0]  # 50 frames a second; its last face is held
        assert torch.equal(second.state.beta, other.state.beta)  # type: ignore[attr-defined]


def test_one_driver_drives_all(everyone: tuple[list[Animator], list[str]], tmp_path: Path) -> None:
    animators, _ = everyone
    made = together(animators, [a_driver(tmp_path / "a.mp4", 5)])
    assert len(made) == 5
    for first, second in made:
        assert torch.equal(first.state.beta, second.state.beta)  # type: ignore[attr-defined]


def test_a_group_becomes_a_film_of_the_photograph(everyone: tuple[list[Animator], list[str]], tmp_path: Path) -> None:
    animators, _ = everyone
    target = tmp_path / "out.mp4"
    how = {"video": VideoOptions(workers=2), "motion": [TransferOptions()]}
    animate_group(animators, [a_driver(tmp_path / "a.mp4", 5)], target, **how)  # type: ignore[arg-type]
    facts = clip_facts(target)
    assert (facts.size, facts.num_frames) == ((260, 180), 5)


@pytest.mark.parametrize("drivers", [0, 2, 4])
def test_another_number_of_drivers_is_refused(drivers: int) -> None:
    with pytest.raises(UsageError, match=f"--driving: {drivers} files for 3 faces"):
        check_drivers(3, drivers)


def test_heads_are_laid_over_each_other_and_the_rest_stays() -> None:
    photo = a_photo()
    shares = [share_in(photo, crop) for crop in CROPS]
    both = np.maximum(*shares)
    boards = [
        pasteboard(photo, crop, a_person(both, own=share), a_head().opacity)
        for crop, share in zip(CROPS, shares, strict=True)
    ]
    ground = boards[1].emptied(boards[0].emptied(photo))
    made = boards[1].lay(a_head(), boards[0].lay(a_head(), ground))
    changing = boards[0].changing(a_head()) | boards[1].changing(a_head())
    assert np.array_equal(made[~changing], photo[~changing])
    for crop in CROPS:
        x, y = crop.from_crop(np.array([0.5, 0.4])).astype(int)
        assert np.abs(made[y, x].astype(int) - [20, 230, 40]).max() <= 1
        assert np.abs(ground[y, x].astype(int) - photo[y, x]).max() > 0
    alone = boards[0].paste(a_head())
    far = ~boards[1].changing(a_head())
    assert np.abs(boards[0].lay(a_head(), boards[0].emptied(photo)).astype(int) - alone)[far].max() <= 40
