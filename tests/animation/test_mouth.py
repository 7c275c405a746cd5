"""A mouth that is drawn between the lips of a photograph that shows it shut: where it opens, what it shows, what stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from export3d.animation import Animator
from export3d.animation.lips import Lips, Rays
from export3d.animation.mouth import Mouth
from export3d.animation.teeth import LOWER, UPPER, Inside
from export3d.camera import Camera
from export3d.model import Render
from export3d.portrait import PortraitModel
from export3d.tracking import Tracker

SIDE, RAYS = 320, 64
LINE, WIDTH = 0.6, 0.2
"""Height of the mouth in the picture and its width there."""

UPPER_SKIN, LOWER_SKIN, FOG = 0.5, -0.5, 0.9
CAMERA = Camera.look_at_head()


def seen_at(points: np.ndarray) -> np.ndarray:
    return CAMERA.project(torch.from_numpy(points).float()[None])[0][0].numpy()


# On the plane z = 0, which the camera sees face on, one picture is so many scene units wide.
_ENDS = seen_at(np.array([[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0]]))
SCALE = 0.2 / float(_ENDS[1, 0] - _ENDS[0, 0])


def landmarks(apart: float = 0.0) -> np.ndarray:
    """Those of a level mouth whose lips are so far apart, in widths."""
    marks = np.full((68, 2), 0.5, np.float32)
    across = np.linspace(0.5 - WIDTH / 2, 0.5 + WIDTH / 2, 5)
    marks[48], marks[54] = (across[0], LINE), (across[4], LINE)
    for at, x in zip((60, 61, 62, 63, 64), across, strict=True):
        marks[at] = (x, LINE - (apart * WIDTH / 2 if at in (61, 62, 63) else 0.0))
    for at, x in zip((67, 66, 65), across[1:4], strict=True):
        marks[at] = (x, LINE + apart * WIDTH / 2)
    return marks


def a_photo() -> torch.Tensor:
    """``(3, S, S)``: skin of one grey above the line where the lips meet, of another below it."""
    picture = torch.full((3, SIDE, SIDE), UPPER_SKIN)
    picture[:, round(LINE * SIDE) :] = LOWER_SKIN
    return picture


def picture_of(height: Callable[[np.ndarray], np.ndarray], opacity: float = 1.0) -> Render:
    """A face whose rays find, so far above the line (in widths of the mouth), what `height` says of that; painted as fog."""
    y, x = (np.mgrid[:RAYS, :RAYS] + 0.5) / RAYS
    t = height((LINE - y) / WIDTH)
    places = np.stack([(x - 0.5) * SCALE, (0.5 - LINE + t * WIDTH) * SCALE, 0.01 * np.cos(9 * x)])
    guide = torch.from_numpy(np.concatenate([places, np.ones((2, RAYS, RAYS))])).float()[None] * opacity
    solid = torch.full((1, 1, RAYS, RAYS), opacity)
    return Render(torch.full((1, 3, SIDE, SIDE), FOG), solid, solid, solid, solid, None, guide)


def opened(by: float) -> Callable[[np.ndarray], np.ndarray]:
    """Both lips so far apart, in widths; between them the rays stand still."""
    return lambda t: np.sign(t) * np.maximum(np.abs(t) - by / 2, 0.0)


def still(t: np.ndarray) -> np.ndarray:
    return t


@pytest.fixture
def mouth() -> Mouth:
    found = Mouth.of(picture_of(still), a_photo(), landmarks())
    assert found is not None
    return found


def lips_of(mouth: Mouth, height: Callable[[np.ndarray], np.ndarray]) -> Lips:
    found = Lips.of(Rays.of(picture_of(height)), mouth.frame)
    assert found is not None
    return found


def drawn(mouth: Mouth, height: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``(S, S)`` green of the picture."""
    render = picture_of(height)
    mouth.drawn(render, CAMERA)
    assert render.image is not None
    return render.image[0, 1].numpy()


def test_a_shut_mouth_is_measured_in_the_portrait(mouth: Mouth) -> None:
    assert mouth.frame.width == pytest.approx(WIDTH * SCALE, rel=0.02) and mouth.frame.middle == pytest.approx(
        0.0, abs=1e-3
    )
    assert np.abs(mouth.rest).max() < 0.01


def test_the_portrait_itself_stays_as_it_is(mouth: Mouth) -> None:
    assert (drawn(mouth, still) == np.float32(FOG)).all()


@pytest.mark.parametrize("by", [0.2, 0.35])
def test_the_opening_is_as_wide_as_the_band_in_which_rays_stand_still(mouth: Mouth, by: float) -> None:
    found = lips_of(mouth, opened(by))
    assert found.band > 0.1 and found.opening[9] - mouth.rest[9] == pytest.approx(by, abs=0.02)
    assert found.width == pytest.approx(WIDTH, rel=0.02)


def test_lips_are_the_photographs_up_to_their_edges(mouth: Mouth) -> None:
    after, by = drawn(mouth, opened(0.3)), 0.3
    edge, middle = by * WIDTH * SIDE / 2, SIDE // 2
    upper, lower = round(LINE * SIDE - edge) - 3, round(LINE * SIDE + edge) + 3
    assert after[upper - 3 : upper, middle] == pytest.approx(UPPER_SKIN, abs=0.03)
    assert after[lower : lower + 3, middle] == pytest.approx(LOWER_SKIN, abs=0.03)


def test_between_the_lips_are_teeth_before_the_dark_and_no_fog(mouth: Mouth) -> None:
    after = drawn(mouth, opened(0.35))
    reach = round(0.35 * WIDTH * SIDE / 2) - 3
    column = after[round(LINE * SIDE) - reach : round(LINE * SIDE) + reach, SIDE // 2 + 3]
    assert not np.isclose(column, FOG, atol=0.02).any()
    assert column.max() > 0.0 and column.min() < -0.6


def test_beyond_the_lips_nothing_changes(mouth: Mouth) -> None:
    changed = drawn(mouth, opened(0.3)) != np.float32(FOG)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert abs(rows.mean() / SIDE - LINE) < 0.01 and len(rows) < 0.8 * WIDTH * SIDE
    assert columns[0] > (0.5 - 0.65 * WIDTH) * SIDE and columns[-1] < (0.5 + 0.65 * WIDTH) * SIDE


def test_puckered_lips_grow_and_stay_shut(mouth: Mouth) -> None:
    assert (
        drawn(mouth, lambda t: np.where(np.abs(t) < 0.3, t / 1.7, t - np.sign(t) * (0.3 - 0.3 / 1.7)))
        == np.float32(FOG)
    ).all()


def test_the_wider_the_band_the_farther_the_mouth_is_drawn_open(mouth: Mouth) -> None:
    bands = [lips_of(mouth, opened(by)).band for by in (0.0, 0.12, 0.16, 0.3)]
    assert bands[0] == 0.0 and bands == sorted(bands) and bands[3] > 0.1
    heights = [int((drawn(mouth, opened(by))[:, SIDE // 2] != np.float32(FOG)).sum()) for by in (0.02, 0.16, 0.3)]
    assert heights[0] == 0 < heights[1] < heights[2]


def test_a_head_without_skin_there_has_no_lips_to_draw(mouth: Mouth) -> None:
    render = picture_of(opened(0.3), opacity=0.5)
    mouth.drawn(render, CAMERA)
    assert Lips.of(Rays.of(render), mouth.frame) is None and render.image is not None and (render.image == FOG).all()


def test_mouths_that_the_photograph_shows_open_stay_the_models() -> None:
    assert Mouth.of(picture_of(still), a_photo(), landmarks(apart=0.2)) is None
    assert Mouth.of(picture_of(still), a_photo(), landmarks(apart=0.05)) is not None


def test_where_rays_meet_no_skin_there_is_no_mouth() -> None:
    assert Mouth.of(picture_of(still, opacity=0.5), a_photo(), landmarks()) is None


def seen_inside(light: float, opening: float = 0.4) -> torch.Tensor:
    """``(3, 41, 81)`` of a mouth in a face so light: s from -0.4 to 0.4, from edge to edge of the lips."""
    t = torch.linspace(0.0, -opening, 41)[:, None].expand(41, 81)
    s = torch.linspace(-0.4, 0.4, 81)[None].expand(41, 81)
    return Inside.of(torch.full((3, 4, 4), light)).seen((s, t), (t, s, t + opening), torch.full((41, 81), opening))


def test_upper_teeth_end_in_a_light_edge_before_the_dark() -> None:
    middle = seen_inside(0.9)[1, :, 44]
    assert middle[2] > 0.4 and middle[2:20].min() < 0.15 and middle[-1] > middle[10:30].min()


def test_teeth_are_told_apart_where_one_ends() -> None:
    row = seen_inside(0.9)[1, 0]
    ends = [round((end + 0.4) / 0.01) for end in UPPER[:2]]
    assert all(row[at] < row[at - 3] and row[at] < row[at + 3] for at in ends)
    assert len(UPPER) == len(LOWER) and max(LOWER) < max(UPPER)  # lower teeth are narrower


def test_a_mouth_is_as_light_as_its_face() -> None:
    dark, light = seen_inside(0.2).mean(), seen_inside(0.9).mean()
    assert dark / light == pytest.approx(0.2 / 0.9, rel=0.02)


def test_what_is_white_on_teeth_is_red_on_gums() -> None:
    t = torch.full((1, 1), 0.3)  # far above the edge of the upper teeth
    seen = Inside.of(torch.full((3, 4, 4), 0.9)).seen((t * 0 + 0.08, t), (-t, t * 0, t), t)[:, 0, 0]
    assert seen[0] > 1.3 * seen[1]


@pytest.fixture
def sharp(tiny_model: PortraitModel, make_tracker: Callable[..., Tracker], photo: np.ndarray) -> Animator:
    made = Animator(tiny_model, make_tracker(), detail=160)
    made.portrait(photo)
    return made


def test_films_draw_the_mouth_of_their_portrait(sharp: Animator, mouth: Mouth) -> None:
    subject = sharp.current()
    assert subject.landmarks is not None
    before = sharp.frame(subject.state, subject.camera).copy()
    asked: list[int] = []

    class Noted(Mouth):
        def drawn(self, render: Render, camera: Camera) -> None:
            assert render.image is not None and render.guide is not None
            asked.append(render.image.shape[-1])
            render.image[:, :, :4] = 1.0

    sharp.subject = replace(subject, mouth=Noted(**vars(mouth)))
    sharp._forget()
    after = sharp.frame(subject.state, subject.camera)
    assert asked == [after.shape[0]] and (after[:4] == 255).all() and (after[4:] == before[4:]).all()


def test_without_the_photographs_detail_the_model_opens_the_mouth(animator: Animator) -> None:
    assert animator.subject is not None and animator.subject.mouth is None
