"""The head in the photograph: nothing else changes, there is no seam, and the photograph bounds the picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from clips import face_points, make_clip
from cutouts import CROPS, a_disc, a_head, a_person, a_photo, share_in
from export3d.animation import Animator, ClipDriver, TransferOptions, animate_video
from export3d.animation import old_head as old_head_module
from export3d.animation import person as person_module
from export3d.animation.head import HeadLayer, Place
from export3d.animation.paste import FULL_HD, REACH, Pasteboard, pasteboard, sized
from export3d.animation.person import ROOMS, person_apart
from export3d.animation.video_output import VideoOptions
from export3d.cli import main
from export3d.errors import UsageError
from export3d.portrait import PortraitModel, build_model, preset
from export3d.provenance import Finish, ProvenanceOptions
from export3d.rendering.fused import fused_status
from export3d.tracking import Crop, Tracker
from export3d.tracking.person import find_person, refined

MakeTracker = Callable[..., Tracker]


def a_board(crop: Crop, photo: np.ndarray | None = None) -> Pasteboard:
    photo = a_photo() if photo is None else photo
    return pasteboard(photo, crop, a_person(share_in(photo, crop)), a_disc(64, 0.2))


@pytest.mark.parametrize("name", CROPS)
def test_outside_the_heads_the_photograph_is_unchanged(name: str) -> None:
    board = a_board(CROPS[name])
    for x in (0.2, 0.5, 0.6):
        made, changing = board.paste(a_head(x=x)), board.changing(a_head(x=x))
        assert made.shape == board.photo.shape and 0.0 < changing.mean() < 0.5
        np.testing.assert_array_equal(made[~changing], board.photo[~changing])
        assert (made[changing] != board.photo[changing]).any(axis=-1).mean() > 0.7


@pytest.mark.parametrize("name", CROPS)
def test_the_head_stands_where_the_crop_has_it(name: str) -> None:
    crop = CROPS[name]
    made = a_board(crop).paste(a_head(x=0.6)).astype(int)
    x, y = np.floor(crop.from_crop(np.array([0.6, 0.4]))).astype(int)
    np.testing.assert_allclose(made[y, x], [20, 230, 40], atol=2)


def test_a_head_that_fills_the_crop_leaves_no_seam_at_its_border() -> None:
    photo = np.full((180, 240, 3), 90, dtype=np.uint8)
    for crop in (CROPS["upright"], CROPS["tilted"]):
        full, light = torch.ones(1, 64, 64), torch.full((3, 64, 64), 190.0 / 127.5 - 1.0)
        head = HeadLayer.of_picture(light, full, torch.zeros_like(light), place=Place())
        made = a_board(crop, photo).paste(head).astype(int)
        y, x = np.mgrid[:180, :240]
        places = crop.to_crop(np.stack([x, y], -1) + 0.5)
        inside = ((places > 0.0) & (places < 1.0)).all(axis=-1)
        rim = inside & ~((places > 0.0125) & (places < 0.9875)).all(axis=-1)
        assert rim.any() and np.abs(made[rim] - 90).max() <= 20  # of the 100 that lie between head and photo
        assert made[inside].max() == pytest.approx(190, abs=4) and (made[~inside] == 90).all()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", CROPS)
def test_a_head_that_rises_and_comes_nearer_is_not_cut_by_the_crop(name: str, fused: bool) -> None:
    if fused and not fused_status()[0]:
        pytest.skip(fused_status()[1])
    crop, place = CROPS[name], Place(0.9, 0.05, 0.3)
    made = replace(a_board(crop), fused=fused).paste(replace(a_head(), place=place)).astype(int)
    middle = (np.array([0.5, 0.4]) - [place.x, place.y]) / place.scale
    top = middle - [0.0, 0.2]
    for point in (middle, top):  # the latter above the crop
        x, y = np.floor(crop.from_crop(point)).astype(int)
        if x >= 0 and y >= 0:  # in the photograph
            np.testing.assert_allclose(made[y, x], [20, 230, 40], atol=2)
    assert top[1] < -0.05


def test_a_head_that_reaches_beyond_its_picture_keeps_the_photograph_at_the_border_of_it() -> None:
    photo, crop = np.full((180, 240, 3), 90, dtype=np.uint8), CROPS["upright"]
    person = np.zeros((180, 240), dtype=np.float32)
    person[:, 100:140] = 1.0
    photo[:, 100:140] = 250
    below = person * (np.arange(180) > 51)[:, None]
    board, short = (pasteboard(photo, crop, a_person(each), a_disc(64, 0.2)) for each in (person, below))
    border, middle = (int(y) for _, y in crop.from_crop(np.array([[0.5, 0.04], [0.5, 0.2]])))
    assert (board.empty()[border, 105:135] == 250).all() and board.empty()[middle, 120, 0] < 110
    assert short.empty()[border, 120, 0] < 250  # it may all go


def test_the_old_head_is_gone_where_the_new_one_is_not() -> None:
    crop = CROPS["upright"]
    photo = np.full((180, 240, 3), 90, dtype=np.uint8)
    photo[share_in(photo, crop) > 0] = (250, 0, 0)
    nobody = HeadLayer(torch.zeros(3, 64, 64), torch.zeros(1, 64, 64))
    assert np.abs(a_board(crop, photo).paste(nobody).astype(int) - 90).max() <= 2


def test_long_hair_beside_the_neck_leaves_with_the_head_little_by_little() -> None:
    photo, crop = np.full((180, 240, 3), 90, dtype=np.uint8), CROPS["upright"]
    person = np.zeros((180, 240), dtype=np.float32)
    person[:, 90:150] = 1.0  # from the top of the photo to its bottom; of it only the disc is rendered
    photo[:, 90:150] = 250
    for landmarks in (None, face_points((0.5, 0.5), 0.3)):  # with them it is as near as a neck
        board = pasteboard(photo, crop, a_person(person), a_disc(64, 0.2), landmarks=landmarks)
        column = board.empty()[:, 96, 0].astype(int)  # beside the disc
        assert column[70] < 110 and column[100] == 250
        assert np.abs(np.diff(column[70:110])).max() < 30


def test_beside_the_photographs_body_none_is_rendered() -> None:
    photo, crop = np.full((180, 240, 3), 90, dtype=np.uint8), CROPS["upright"]
    full = torch.ones(1, 64, 64)
    made = a_board(crop, photo).paste(HeadLayer(190.0 * full.repeat(3, 1, 1), full))[..., 0]
    places = np.array([[0.5, 0.45], [0.85, 0.45], [0.5, 0.62], [0.85, 0.68]])  # the person reaches 0.2 from (0.5, 0.4)
    assert [int(made[y, x]) for x, y in crop.from_crop(places).astype(int)] == pytest.approx(
        [190, 190, 185, 90], abs=10
    )


def test_the_old_chin_leaves_and_neck_and_background_close_over_it() -> None:
    photo, crop = np.full((180, 240, 3), 90, dtype=np.uint8), CROPS["upright"]
    landmarks = face_points((0.5, 0.5), 0.22)
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    middle = ((low + high) / 2.0) * [1.0, 0.0] + [0.0, high[1] - 0.02]
    x, y = crop.from_crop(middle).astype(int)
    photo[y - 2 : y + 3, x - 2 : x + 3] = (250, 0, 0)
    person = a_person(np.ones((180, 240), dtype=np.float32))
    with_chin, without = (
        pasteboard(photo, crop, person, a_disc(64, 0.2), landmarks=given).empty()[y, x] for given in (None, landmarks)
    )
    assert high[1] > 0.75 and with_chin.tolist() == [250, 0, 0]
    np.testing.assert_allclose(without, 90, atol=6)


def test_beside_the_throat_a_jaw_gives_way_to_the_background_and_shoulders_stay() -> None:
    photo, crop = np.full((180, 240, 3), 90, dtype=np.uint8), CROPS["upright"]
    landmarks = face_points((0.5, 0.5), 0.22)
    share = share_in(photo, crop, 0.55)
    photo[share > 0.0] = (250, 0, 0)
    board = pasteboard(photo, crop, a_person(share), a_disc(64, 0.55), landmarks=landmarks)
    left, right = landmarks[[4, 12]].min(axis=0)[0], landmarks[[4, 12]].max(axis=0)[0]
    half, middle = (right - left) / 2.0, (left + right) / 2.0
    aside = middle + np.array([1.3, 0.0, 1.3, 2.1]) * half
    jaw, throat, low, shoulder, body = (
        board.empty()[y, x, 0]
        for x, y in crop.from_crop(np.stack([[*aside, 0.5], [0.72, 0.72, 0.84, 0.7, 0.88]], axis=-1)).astype(int)
    )
    assert jaw < 120 < 150 < throat and low > jaw + 60 and shoulder == body == 250


def test_a_neck_bends_from_the_shoulders_to_where_the_head_has_gone() -> None:
    head = replace(a_head(), place=Place(scale=2.0, x=0.1, y=-0.2))
    board, picture = a_board(CROPS["upright"]), torch.zeros(1, 4, 64, 64)
    lines = head.seen_at(board.places, picture, board.resting)
    crop_y = board.places[1, 0] + board.places[1, 2] * np.arange(len(lines))
    above, below = crop_y < 0.69, crop_y > 0.96
    assert (board.resting[above] == 0.0).all() and (board.resting[below] == 1.0).all()
    assert above.any() and below.any() and (np.diff(board.resting) >= 0.0).all()
    # By hand: the place times 64 pixels, half a pixel less.
    assert lines[above, 1, 0] == pytest.approx(64.0 * (2.0 * crop_y[above] - 0.2) - 0.5)
    assert lines[below, 1, 0] == pytest.approx(64.0 * crop_y[below] - 0.5)
    assert lines[above, 0, 1] == pytest.approx(2.0 * lines[below, 0, 1][0])
    middle = np.abs(board.resting - 0.5).argmin()
    share = board.resting[middle]
    wanted = (1.0 - share) * (2.0 * crop_y[middle] - 0.2) + share * crop_y[middle]
    assert lines[middle, 1, 0] == pytest.approx(64.0 * wanted - 0.5)


def test_a_large_head_is_looked_at_in_larger_pixels_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = torch.meshgrid(*[(torch.arange(n) + 0.5) / 512.0 for n in (601, 513)], indexing="ij")
    round_, places = (torch.hypot(x - 0.5, y - 0.45) < 0.3).float()[None], torch.stack([x, y], dim=-1)
    given = {"side": 512.0, "room": 0.0, "landmarks": face_points((0.5, 0.5), 0.22)}
    coarse = old_head_module.old_head(round_, round_, places, **given)  # type: ignore[arg-type]
    monkeypatch.setattr(old_head_module, "ENOUGH_PX", 10**9)
    for name, fine in vars(old_head_module.old_head(round_, round_, places, **given)).items():  # type: ignore[arg-type]
        found = getattr(coarse, name)
        assert found.shape == fine.shape == (1, 601, 513) and fine.mean() > 0.01
        assert (found - fine).abs().mean() < 0.01 and (name == "hole" or (found - fine).abs().max() < 0.25)


def test_nobody_else_is_erased_with_the_head() -> None:
    crop, other = CROPS["upright"], Crop(158.0, 88.0, 60.0)
    photo = a_photo()
    share = np.maximum(share_in(photo, crop), share_in(photo, other))
    own = person_module.own_share(share, crop, [other])
    board = pasteboard(photo, crop, a_person(share, own), a_disc(64, 0.2))
    theirs = share_in(photo, other, 0.1) > 0.0
    np.testing.assert_array_equal(board.empty()[theirs], photo[theirs])
    assert own[80, 118] == 1.0 and own[80, 158] == 0.0
    far = pasteboard(photo, crop, a_person(share), a_disc(64, 0.2))  # a body without a face that was found
    assert (far.empty()[:, 140:] == photo[:, 140:]).mean() > 0.95


def test_a_layer_is_the_head_without_what_is_behind_it() -> None:
    opacity = torch.tensor([0.0, 0.01, 0.5, 1.0]).reshape(1, 2, 2)
    head, behind = torch.full((3, 2, 2), 0.6), torch.full((3, 2, 2), -0.2)
    layer = HeadLayer.of_picture(opacity * head + (1.0 - opacity) * behind, opacity, behind)
    assert layer.opacity.flatten()[:2].tolist() == [0.0, 0.0]  # noise of the matte
    torch.testing.assert_close(layer.opacity.flatten()[2:], torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(layer.colours, layer.opacity * (0.6 + 1.0) * 127.5 * torch.ones(3, 1, 1))


def test_the_size_is_the_photos_own_even_and_at_most_full_hd() -> None:
    photo = a_photo(181, 243)
    np.testing.assert_array_equal(sized(photo), photo[:180, :242])
    assert sized(np.zeros((3000, 4000, 3), np.uint8)).shape[:2] == (FULL_HD[1], 1440)
    assert sized(np.zeros((4000, 2000, 3), np.uint8)).shape[:2] == (FULL_HD[0], 960)
    assert sized(photo, 90).shape == (90, 120, 3)


def test_a_person_beyond_the_photograph_is_continued_and_never_black(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, crop = a_photo(), CROPS["beyond and tilted"]
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: share_in(image, crop, 0.3))
    person = person_apart(photo, crop, lambda: torch.zeros(1, 4, 4))
    reach = crop.side / 2.0 * (math.cos(abs(crop.angle)) + math.sin(abs(crop.angle)))
    height, width = person.plain.shape[:2]
    assert person.crop.center_x + reach <= width and person.crop.center_y + reach <= height
    assert person.plain.min() > 50 and person.spread.min() > 50
    assert (person.plain[0, 0] == 150).all()  # plain behind the person


@pytest.mark.parametrize(("radius", "room"), [(0.3, 0.0), (0.42, ROOMS[1]), (0.6, ROOMS[2])])
def test_there_is_room_around_the_crop_where_it_cuts_the_head(
    radius: float, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, crop = a_photo(), CROPS["upright"]
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: share_in(image, crop, radius))
    person = person_apart(photo, crop, lambda: torch.zeros(1, 4, 4))
    assert person.room == room and person.crop.side == crop.side


def test_without_the_segmentation_the_models_matte_serves_and_a_wild_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: None)
    photo, crop = a_photo(), CROPS["upright"]
    share = person_apart(photo, crop, lambda: a_disc(64, 0.2)).share
    assert np.abs(share - share_in(photo, crop)).mean() < 0.005
    with pytest.raises(UsageError, match=r"cannot be told from the background.*models get person-segmentation"):
        person_apart(photo, crop, lambda: torch.ones(1, 64, 64))


def test_a_coarse_share_takes_on_the_edges_of_the_photograph() -> None:
    photo = np.full((200, 300, 3), 200, dtype=np.uint8)
    truth = np.zeros((200, 300), dtype=np.float32)
    truth[60:140, 100:200] = 1.0
    photo[truth > 0.0] = (90, 60, 40)
    coarse = np.zeros_like(truth)
    for down in range(-6, 7, 3):
        for right in range(-6, 7, 3):
            coarse += np.roll(truth, (down, right), (0, 1)) / 25.0
    share = refined(photo, coarse)
    assert np.abs(coarse - truth).mean() > 2.0 * np.abs(share - truth).mean()
    assert share[100, 104] > 0.9 and share[100, 95] < 0.1 and share.dtype == np.float32


def test_a_segmentation_that_is_not_there_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXPORT3D_PERSON_MODEL", str(tmp_path / "none.tflite"))
    words = r"none.tflite: no such file .*EXPORT3D_PERSON_MODEL.*models get person-segmentation"
    with pytest.raises(UsageError, match=words) as caught:
        find_person(a_photo(), CROPS["upright"])
    assert caught.value.exit_code == 2


@pytest.fixture
def whole(
    tiny_model: PortraitModel, make_tracker: MakeTracker, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Animator:
    """An animator that keeps the photograph's detail."""
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: share_in(image, crop))
    made = Animator(tiny_model, make_tracker(), framing="photo")
    made.portrait(photo)
    return made


@pytest.mark.parametrize("beside", [False, True])
def test_every_frame_of_a_film_keeps_the_photograph(
    whole: Animator, make_tracker: MakeTracker, tmp_path: Path, photo: np.ndarray, beside: bool
) -> None:
    frames: list[np.ndarray] = []
    finish = Finish(ProvenanceOptions(no_mark=True, no_manifest=True))
    finish.frame = lambda image, **_: frames.append(image) or image  # type: ignore[method-assign, func-returns-value]
    driver = ClipDriver(make_clip(tmp_path / "clip.mp4", fps=Fraction(25), num_frames=6), make_tracker(6))
    options = VideoOptions(side_by_side=beside)
    try:
        report = animate_video(
            whole, driver, tmp_path / "out.mp4", video=options, motion=TransferOptions(), finish=finish
        )
    finally:
        driver.close()
    assert report.frames == len(frames) == 6 and report.height == 160
    assert (report.width > 320) if beside else (report.width == 160)
    crop = whole.subject.crop  # type: ignore[union-attr]
    y, x = np.mgrid[:160, :160]
    places = crop.to_crop(np.stack([x, y], -1) + 0.5)
    moved = ((places > -REACH) & (places < 1.0 + REACH)).all(axis=-1)
    outside = ~(moved & (places[..., 1] < 1.0))
    assert outside.any()
    for frame in frames:
        np.testing.assert_array_equal(frame[:, -160:][outside], photo[outside])
    assert any((frame[:, -160:] != photo).any() for frame in frames)


def test_the_papers_model_has_no_head_apart(make_tracker: MakeTracker) -> None:
    model = build_model(preset("tiny"))
    with pytest.raises(UsageError, match="--framing photo and --background need a model that tells the head"):
        Animator(model, make_tracker(), framing="photo")


def test_an_unknown_framing_names_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["animate", "--source", "a.png", "--driving", "b.mp4", "-o", "c.mp4", "--framing", "square"])
    said = capsys.readouterr().err
    assert code == 2 and "--framing" in said and "photo" in said and "face" in said


def test_a_larger_square_has_the_photographs_own_detail_and_the_model_s_own_size_none(
    tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray
) -> None:
    own = tiny_model.config.image_size
    fine, plain = (Animator(tiny_model, make_tracker(), detail=size) for size in (2 * own, None))
    for animator, side in ((fine, 2 * own), (plain, own)):
        subject = animator.portrait(photo)
        assert subject.person is None
        assert animator.frame(subject.state, subject.camera).shape == (side, side, 3)
