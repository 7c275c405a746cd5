"""A film as the source: what changes in its frames, and how long the result is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clips import clip_facts, face_points, make_clip
from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions
from export3d.animation import dub as dubbing
from export3d.animation.dub import DUBBED, DubOptions, dub_video, patched, region_mask
from export3d.animation.regions import FACE_REGIONS, REGIONS, BetaReading
from export3d.errors import NoFaceError, UsageError
from export3d.face_state import FaceState
from export3d.tracking import Crop, Tracker
from export3d.tracking.standin import GivenLandmarks, MeasuredCoefficients

POINTS = (face_points((0.5, 0.42), 0.25)).astype(np.float32)


def only(*regions: str) -> dict[str, float]:
    return {name: float(name in regions) for name in REGIONS}


@pytest.fixture
def dub(animator: Animator, make_tracker: Callable[..., Tracker], tmp_path: Path) -> Callable[..., Any]:
    """Dub a film of so many frames by a clip of so many; gives the file and the pairs of frames and faces that were drawn."""

    def run(frames: int, driven: int, lost: tuple[int, ...] = (), **options: Any) -> tuple[Path, list[Any]]:
        source = make_clip(tmp_path / "film.mp4", num_frames=frames)
        clip = make_clip(tmp_path / "clip.mp4", num_frames=driven, audio_s=0.1)
        drawn: list[Any] = []
        keep = dubbing._picture

        def noted(pair: Any, worker: Animator, **how: Any) -> np.ndarray:
            drawn.append((pair, keep(pair, worker, **how)))
            return drawn[-1][1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dubbing, "_picture", noted)
            faces = [[face_points((80.0, 80.0), 40.0, 0.5 - 0.01 * index)] for index in range(driven)]
            driver = ClipDriver(clip, Tracker(GivenLandmarks(faces), MeasuredCoefficients(), size=32))
            dub_video(
                animator,
                lambda: ClipDriver(source, make_tracker(frames, lost)),
                driver,
                tmp_path / "out.mp4",
                dub=DubOptions(**options),
                video=VideoOptions(workers=1),
                motion=TransferOptions(shift=False),
            )
        return tmp_path / "out.mp4", drawn

    return run


def test_the_result_has_the_films_times_and_sound(dub: Callable[..., Any], tmp_path: Path) -> None:
    target, _ = dub(6, 9)
    made, film_facts = clip_facts(target), clip_facts(tmp_path / "film.mp4")
    assert (made.num_frames, made.size, made.num_samples) == (6, film_facts.size, film_facts.num_samples)


@pytest.mark.parametrize(
    ("until", "frames", "driven", "length"),
    [
        (None, 6, 3, 6),
        ("shortest", 6, 3, 3),
        ("shortest", 3, 6, 3),
        ("hold", 3, 7, 7),
        ("loop", 3, 7, 7),
        ("loop", 7, 3, 3),
    ],
)
def test_how_long_it_lasts(dub: Callable[..., Any], until: Any, frames: int, driven: int, length: int) -> None:
    target, drawn = dub(frames, driven, until=until)
    assert clip_facts(target).num_frames == length
    numbers = [pair[0].index for pair, _ in drawn]
    told = {"loop": [k % frames for k in range(length)], "hold": [min(k, frames - 1) for k in range(length)]}
    assert numbers == told.get(str(until), list(range(length)))


def test_the_drivers_sound_is_taken_where_asked_for(dub: Callable[..., Any], tmp_path: Path) -> None:
    target, _ = dub(6, 6, driver_sound=True)
    assert clip_facts(target).num_samples == clip_facts(tmp_path / "clip.mp4").num_samples


@pytest.fixture
def all_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the driver changed every pixel; the tiny model hardly moves."""
    monkeypatch.setattr(dubbing, "_changed", lambda still, made: torch.ones(1, 256, 256))


@pytest.mark.usefixtures("all_changes")
def test_nothing_changes_outside_the_mask(dub: Callable[..., Any]) -> None:
    _, drawn = dub(4, 4)
    for (frame, own), image in drawn:
        assert own is not None
        full = np.full((64, 64, 3), 255, dtype=np.uint8)
        black = np.zeros_like(frame.image)
        mask = patched(black, full, frame.crop, region_mask(frame.landmarks, DUBBED))[..., 0]
        changed = np.abs(image.astype(int) - frame.image).max(axis=2)
        assert changed[mask == 0].max() == 0 and changed[mask > 128].max() > 8
        assert 0.0 < (mask > 0).mean() < 0.5


@pytest.mark.usefixtures("all_changes")
def test_what_is_behind_the_head_stays_the_films(dub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = Animator.render

    def clear(self: Animator, *given: Any) -> Any:
        render = real(self, *given)
        return replace(render, image_opacity=torch.zeros_like(render.image_opacity))

    monkeypatch.setattr(Animator, "render", clear)
    _, drawn = dub(4, 4)
    for (frame, _), image in drawn:
        white = np.full((64, 64, 3), 255, dtype=np.uint8)
        near, wide = (
            patched(np.zeros_like(frame.image), white, frame.crop, region_mask(frame.landmarks, DUBBED, growth))[..., 0]
            for growth in (dubbing.CLOSE, dubbing.GROWTH)
        )
        changed = np.abs(image.astype(int) - frame.image).max(axis=2)
        assert (
            ((near == 0) & (wide > 128)).sum() > 20 and changed[near == 0].max() == 0 and changed[near > 128].max() > 8
        )


def test_where_the_driver_changes_nothing_the_films_pixels_stay(
    dub: Callable[..., Any], animator: Animator, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, drawn = dub(4, 4)
    dark, bright = (np.full((64, 64, 3), level, dtype=np.uint8) for level in (0, 255))
    for (frame, own), _ in drawn:
        monkeypatch.setattr(Animator, "frame", lambda _, state, camera, own=own: dark if state.same_as(own) else bright)
        kept, made = (
            dubbing._picture((replace(frame, state=state), own), animator, strengths=DUBBED)
            for state in (own, frame.state)
        )
        assert np.array_equal(kept, frame.image) and (made == 255).all(axis=2).sum() > 100


def test_pixels_are_made_where_they_or_their_neighbours_change_by_four_levels() -> None:
    still, made = np.zeros((512, 512, 3), dtype=np.uint8), np.zeros((512, 512, 3), dtype=np.uint8)
    made[:, 256:] = 4
    share = dubbing._changed(still, made)[0, 100]
    assert (share[:123] == 0.0).all() and (share[133:] == 1.0).all() and (share.diff() >= 0.0).all()
    assert share[128].item() == pytest.approx((4.0 * 6 / 11 - 1.0) / 3.0)  # of 11 neighbours, 6 change


def test_frames_without_a_face_stay_as_they_are(dub: Callable[..., Any]) -> None:
    _, drawn = dub(4, 4, lost=(1,))
    (frame, own), image = drawn[1]
    assert own is None and np.array_equal(image, frame.image)


def test_only_the_chosen_regions_reach_the_model(dub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    reading = BetaReading(torch.randn(64, 4, generator=generator), ("lips", "jaw", "eyes", "brows"))
    monkeypatch.setattr(dubbing.BetaReading, "of", lambda model: reading)
    _, drawn = dub(4, 4, strengths=only("lips"))
    lips = torch.tensor([name == "lips" for name in reading.regions])
    changes = torch.cat([(frame.state.beta - own.beta) @ reading.weight for (frame, own), _ in drawn])
    assert changes[:, lips].abs().max() > 1e-3
    assert changes[:, ~lips].abs().max() < 1e-3 * changes[:, lips].abs().max()
    for (frame, own), _ in drawn:
        assert frame.state.gaze is None or torch.equal(frame.state.gaze, own.gaze)


def test_the_pose_is_the_films(dub: Callable[..., Any]) -> None:
    _, drawn = dub(4, 4)
    for (frame, own), _ in drawn:
        assert torch.equal(frame.state.turn, own.turn)


def test_a_film_without_a_face_is_named(dub: Callable[..., Any]) -> None:
    with pytest.raises(NoFaceError, match=r"film\.mp4: no face was found"):
        dub(3, 3, lost=(0, 1, 2))


def test_a_films_pose_cannot_be_driven() -> None:
    with pytest.raises(UsageError, match="a film as --source keeps its own head pose"):
        DubOptions(strengths=only("lips", "pose"))
    with pytest.raises(UsageError, match="nothing of the film would change"):
        DubOptions(strengths=only())


def test_masks_lie_where_the_regions_are() -> None:
    masks = {name: region_mask(POINTS, only(name))[0].numpy() for name in FACE_REGIONS}
    size = len(masks["lips"])

    def at(name: str, index: int) -> float:
        x, y = (POINTS[index] * size).astype(int)
        return float(masks[name][y, x])

    assert at("lips", 62) == 1.0 and at("jaw", 8) > 0.9 and at("eyes", 36) > 0.9 and at("brows", 19) > 0.9
    assert at("lips", 36) == at("lips", 19) == at("eyes", 62) == at("brows", 62) == 0.0
    both = region_mask(POINTS, only("lips", "brows"))[0].numpy()
    assert (both >= np.maximum(masks["lips"], masks["brows"]) - 0.01).all()


@pytest.mark.parametrize("crop", [Crop(40.0, 30.0, 30.0), Crop(5.0, 8.0, 40.0), Crop(40.0, 30.0, 24.0, 0.6)])
def test_a_picture_of_the_crop_itself_changes_nothing_much(crop: Crop) -> None:
    y, x = np.mgrid[:60, :80]
    image = np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8)  # a slope, which resizing keeps
    from export3d.tracking import crop_image

    made = patched(image, crop_image(image, crop, 128), crop, torch.ones(1, 8, 8))
    inside = np.hypot(x + 0.5 - crop.center_x, y + 0.5 - crop.center_y) < crop.side * 0.4
    inside &= (x > 2) & (y > 2)
    assert np.abs(made.astype(int) - image)[inside].max() <= 4


def test_a_state_of_the_films_own_is_read_like_a_portraits(animator: Animator) -> None:
    assert animator.subject is not None
    subject = animator.subject
    plain = FaceState(beta=subject.state.beta, gaze=subject.state.gaze)
    assert animator.own_state(plain, subject.camera).same_as(subject.state)


class Seen:
    """Stands in for `AllowedSources`: notes where it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def check(self, image: np.ndarray, path: Path | None, where: str) -> None:
        self.asked.append(where)


def test_every_shot_is_looked_up_among_the_allowed_portraits_and_every_face_that_comes_back(animator: Animator) -> None:
    def frame(index: int, found: bool = True, cut: bool = False) -> dubbing.DrivingFrame:
        own, image = animator.subject, np.zeros((4, 4, 3), dtype=np.uint8)
        assert own is not None
        face = {"state": own.state, "camera": own.camera, "image": image}
        return dubbing.DrivingFrame(**face, found=found, cut=cut, index=index, pts=index, duration=1)

    frames = [frame(0, found=False), frame(1), frame(2), frame(3, cut=True), frame(4), frame(6), frame(7, found=False)]
    twin = animator.twin()
    twin.allowed = seen = Seen()  # type: ignore[assignment]
    assert [each.index for each in dubbing._allowed(iter([*frames, frame(8)]), twin, Path("a.mp4"))] == [
        0,
        1,
        2,
        3,
        4,
        6,
        7,
        8,
    ]
    assert [int(where.split()[-1]) for where in seen.asked] == [1, 3, 6, 8]
