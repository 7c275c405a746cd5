"""Batches are a pure function of (seed, step, place); augmentation changes both frames alike and stays exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.camera import Camera
from export3d.data import ClipDataset
from export3d.face_state import ARKIT_NAMES, MIRRORED_ARKIT, FaceState
from export3d.heads.clips.motion import arkit_weights
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.landmarks import MIRRORED_LANDMARKS
from export3d.training.batches.augment import AugmentConfig, draw_change, recolor, replace_background
from export3d.training.batches.clip_batches import clip_batch
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.pair_batches import PairBatch, PairSampling, _chosen_points, pair_batch
from export3d.training.batches.prefetch import Prefetcher

NOTHING = AugmentConfig()
SAMPLING = PairSampling(raw_size=8)
STRONG = AugmentConfig(other_background=0.4, flat_background=0.4, color_gain=0.2, gamma=0.2, mirror=0.5, noise=0.1)


@pytest.fixture
def store(clip_folder: Path) -> FrameStore:
    return FrameStore(ClipDataset(clip_folder, split="train"), 2**28)


def assert_equal(a: object, b: object) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert (value is None) == (other is None)
        if isinstance(value, FaceState):
            assert value.same_as(other), name
        elif value is not None:
            assert torch.equal(value, other), name


def test_a_batch_depends_on_seed_step_and_place_only(clip_folder: Path, store: FrameStore) -> None:
    fresh = FrameStore(ClipDataset(clip_folder, split="train"), 0)  # caches nothing
    for step in (7, 2):
        whole = pair_batch(store, 3, step, range(4), sampling=SAMPLING, augment=STRONG, with_truth=True)
        again = pair_batch(fresh, 3, step, range(4), sampling=SAMPLING, augment=STRONG, with_truth=True)
        assert_equal(whole, again)
        half = pair_batch(store, 3, step, range(2, 4), sampling=SAMPLING, augment=STRONG, with_truth=True)
        assert_equal(whole[2:], half)
    other = pair_batch(store, 4, 7, range(4), sampling=SAMPLING, augment=NOTHING)
    assert not torch.equal(
        other.state.beta, pair_batch(store, 3, 7, range(4), sampling=SAMPLING, augment=NOTHING).state.beta
    )


def test_without_augmentation_frames_and_labels_are_those_of_the_clip(store: FrameStore) -> None:
    batch = pair_batch(store, 0, 0, range(6), sampling=SAMPLING, augment=NOTHING, with_truth=True)
    dataset = store.dataset
    for row in range(6):
        found = [
            (clip, time)
            for clip in range(len(dataset))
            for time in range(dataset.num_frames(clip))
            if np.array_equal(dataset.arrays(clip)["beta"][time], batch.state.beta[row].numpy())
        ]
        assert len(found) == 1
        clip, time = found[0]
        assert np.array_equal(dataset.frame(clip, time), batch.driving[row].numpy())
        assert np.array_equal(dataset.arrays(clip)["camera"][time], batch.camera[row].numpy())
        assert batch.depth is not None and batch.mask is not None
        assert np.allclose(dataset.depth(clip, time) / 16384.0, batch.depth[row].numpy())
        assert np.array_equal(dataset.mask(clip, time), batch.mask[row].numpy())
        sources = [np.array_equal(dataset.frame(clip, t), batch.source[row].numpy()) for t in range(6)]
        assert sum(sources) == 1 and not sources[time]
        source = sources.index(True)
        assert np.array_equal(dataset.arrays(clip)["beta"][source], batch.source_state.beta[row].numpy())
        assert np.array_equal(dataset.arrays(clip)["camera"][source], batch.source_camera[row].numpy())


def test_mirroring_flips_frame_camera_points_and_takes_the_mirrored_beta(store: FrameStore) -> None:
    plain = pair_batch(store, 0, 1, range(4), sampling=SAMPLING, augment=NOTHING, with_truth=True)
    flipped = pair_batch(store, 0, 1, range(4), sampling=SAMPLING, augment=AugmentConfig(mirror=1.0), with_truth=True)
    for name in ("source", "driving", "mask", "source_mask", "depth"):
        assert torch.equal(getattr(flipped, name), getattr(plain, name).flip(2)), name
    assert torch.equal(flipped.state.beta, -plain.state.beta)  # the test's clips store -beta as beta_mirror
    mirrored = Camera.from_vector(plain.camera).mirrored().to_vector()
    assert torch.allclose(flipped.camera, mirrored)
    yaw = Camera.from_vector(plain.source_camera).head_angles()[:, 0]
    assert torch.allclose(Camera.from_vector(flipped.source_camera).head_angles()[:, 0], -yaw, atol=1e-5)
    left_eye, right_eye = plain.landmarks[:, 36], flipped.landmarks[:, 45]
    assert torch.allclose(right_eye[:, 0], 1 - left_eye[:, 0])
    assert torch.allclose(right_eye[:, 1], left_eye[:, 1])


def test_the_head_turns_against_the_torso_as_the_camera_says_but_in_a_static_scene(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = AugmentConfig(mirror=1.0)
    in_room = pair_batch(store, 0, 1, range(4), sampling=SAMPLING, augment=change)  # clips that do not say
    assert torch.equal(in_room.state.turn, Camera.from_vector(in_room.camera).head_turn())
    assert torch.equal(in_room.source_state.turn, Camera.from_vector(in_room.source_camera).head_turn())
    assert in_room.state.turn.norm(dim=1).max() > 0.05
    dataset = store.dataset
    assert isinstance(dataset, ClipDataset)
    monkeypatch.setattr(dataset, "meta", lambda index: {"extra": {"static_scene": True}})
    static = pair_batch(store, 0, 1, range(4), sampling=SAMPLING, augment=change)
    assert not static.state.turn.any() and not static.source_state.turn.any()


def test_mirroring_the_landmark_order_twice_gives_it_back() -> None:
    assert MIRRORED_LANDMARKS[MIRRORED_LANDMARKS].tolist() == list(range(68))
    # By hand: jaw ends, brow ends, eye corners, mouth corners, inner mouth corners; nose bridge stays.
    for a, b in ((0, 16), (17, 26), (36, 45), (39, 42), (48, 54), (60, 64), (27, 27), (33, 33), (51, 51), (57, 57)):
        assert MIRRORED_LANDMARKS[a] == b


def test_replacing_the_background_leaves_the_head_and_blends_the_edge() -> None:
    own, other = np.full((1, 3, 3), 100, np.uint8), np.full((1, 3, 3), 200, np.uint8)
    mask = np.array([[255, 0, 51]], np.uint8)
    frame = np.array([[[10] * 3, [100] * 3, [82] * 3]], np.uint8)  # head colour 10; edge 0.2 * 10 + 0.8 * 100 = 82
    # Head 10; background 200; edge 0.2 * 10 + 0.8 * 200 = 162.
    assert replace_background(frame, mask, own, other)[0, :, 0].tolist() == [10, 200, 162]


def test_a_background_change_is_the_same_in_source_and_driving_frame(store: FrameStore) -> None:
    augment = AugmentConfig(flat_background=1.0)
    batch = pair_batch(store, 0, 0, range(4), sampling=SAMPLING, augment=augment, with_truth=True)
    assert batch.mask is not None and batch.source_mask is not None
    for row in range(4):
        behind = batch.driving[row][batch.mask[row] == 0]
        assert len(behind.unique(dim=0)) == 1  # one flat colour
        assert torch.equal(behind[0], batch.source[row][batch.source_mask[row] == 0][0])


def test_recolouring_without_a_table_is_the_identity_and_with_one_is_monotonic() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    assert recolor(image, None) is image
    change = draw_change(AugmentConfig(color_gain=0.2, gamma=0.3), np.random.default_rng(0))
    changed = recolor(image, change.table)
    assert (np.diff(changed.astype(int), axis=1) >= 0).all()
    assert not np.array_equal(changed, image)


def test_windows_lie_inside_the_raw_image_and_follow_the_mouth(store: FrameStore) -> None:
    sampling = PairSampling(raw_size=64, window=32, centred_share=1.0)
    batch = pair_batch(store, 0, 0, range(60), sampling=sampling, augment=NOTHING)
    top, left = batch.window_top, batch.window_left
    assert top.min() >= 0 and left.min() >= 0 and top.max() <= 32 and left.max() <= 32
    mouth = batch.landmarks[:, 48:68].mean(dim=1) * 64
    inside = (mouth[:, 1] >= top) & (mouth[:, 1] < top + 32) & (mouth[:, 0] >= left) & (mouth[:, 0] < left + 32)
    assert inside.float().mean() > 0.5
    anywhere = pair_batch(store, 0, 0, range(60), sampling=PairSampling(raw_size=64), augment=NOTHING)
    assert anywhere.window_top.abs().max() == 0


def test_windows_that_lie_anywhere_reach_the_border_of_the_picture_in_a_quarter_of_the_pairs(store: FrameStore) -> None:
    sampling = PairSampling(raw_size=64, window=32, centred_share=0.0)
    batch = pair_batch(store, 0, 0, range(400), sampling=sampling, augment=NOTHING)
    for first in (batch.window_top, batch.window_left):
        # A window whose centre lies in the outer quarter is moved to the border.
        assert 0.18 < (first == 0).float().mean() < 0.32
        assert 0.18 < (first == 32).float().mean() < 0.32
        assert len(first.unique()) > 25


def test_the_gaze_is_mirrored_with_the_frame_and_withheld_from_the_asked_share(store: FrameStore) -> None:
    def gazes(mirror: float, unknown: float) -> tuple[torch.Tensor, torch.Tensor]:
        sampling = PairSampling(raw_size=8, gaze_unknown=unknown)
        batch = pair_batch(store, 0, 1, range(64), sampling=sampling, augment=AugmentConfig(mirror=mirror))
        assert batch.state.gaze is not None and batch.source_state.gaze is not None
        return batch.state.gaze, batch.source_state.gaze

    (gaze, source), (turned, _) = gazes(0.0, 0.0), gazes(1.0, 0.0)
    assert not torch.equal(gaze, source)
    assert torch.equal(turned, gaze * torch.tensor([-1.0, 1.0]))
    some, some_source = gazes(0.0, 0.25)
    missing = some.isnan().all(dim=1)
    assert 5 <= int(missing.sum()) <= 30
    assert torch.equal(missing, some_source.isnan().all(dim=1))  # both or neither
    assert torch.equal(some[~missing], gaze[~missing])  # the other draws stay as they were


def test_frontal_sources_are_preferred_where_asked(store: FrameStore) -> None:
    def mean_yaw(share: float) -> float:
        sampling = PairSampling(raw_size=8, frontal_share=share, frontal_deg=8.0)
        batch = pair_batch(store, 0, 0, range(80), sampling=sampling, augment=NOTHING)
        return float(Camera.from_vector(batch.source_camera).head_angles()[:, 0].abs().mean())

    assert mean_yaw(1.0) < 0.7 * mean_yaw(0.0)


def test_contrastive_batches_keep_each_clip_in_order_and_change_its_frames_alike(store: FrameStore) -> None:
    batch = clip_batch(store, 0, 0, range(2), num_frames=4, augment=AugmentConfig(flat_background=1.0))
    assert batch.images.shape == (2, 4, 32, 32, 3)
    corners = batch.images[:, :, 0, 0]  # always background in the test's clips
    assert all(len(clip.unique(dim=0)) == 1 for clip in corners)
    again = clip_batch(store, 0, 0, range(1, 2), num_frames=4, augment=AugmentConfig(flat_background=1.0))
    assert torch.equal(again.beta[0], batch.beta[1])


def test_a_store_with_a_size_gives_small_pictures(clip_folder: Path) -> None:
    store = FrameStore(ClipDataset(clip_folder), 2**20, size=16)
    assert store.frame(0, 0).shape == (16, 16, 3)
    assert store.mask(0, 0).shape == (16, 16)


def test_the_cache_stops_at_its_limit_and_still_reads(clip_folder: Path) -> None:
    store = FrameStore(ClipDataset(clip_folder), 32 * 32 * 3)  # room for one frame
    first, second = store.frame(0, 0), store.frame(0, 1)
    assert store.frame(0, 0) is first
    again = store.frame(0, 1)
    assert again is not second
    assert np.array_equal(again, second)


def test_prefetching_gives_the_batches_in_order_and_passes_errors_on() -> None:
    def load(step: int) -> int:
        if step == 3:
            raise ValueError("step 3 is broken")
        return step * step

    for depth in (0, 2):
        prefetcher = Prefetcher(load, 0, 5, depth)
        assert [prefetcher.next() for _ in range(3)] == [0, 1, 4]
        with pytest.raises(ValueError, match="step 3 is broken"):
            prefetcher.next()
        prefetcher.close()


@pytest.mark.parametrize(
    "change", [{"mirror": 1.5}, {"other_background": 0.7, "flat_background": 0.7}, {"gamma": -1.0}]
)
def test_impossible_augmentation_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        AugmentConfig(**change)


def test_another_persons_leak_moves_only_the_drivers_beta(store: FrameStore) -> None:
    arrays = {clip: dict(store.arrays(clip)) for clip in range(len(store.dataset))}
    leaks = {clip: np.full(64, 10.0 * clip, np.float32) for clip in arrays}
    for clip, own in arrays.items():
        own["beta"] = own["true_beta"] + leaks[clip]
        own["beta_mirror"] = -own["beta"]
        store._arrays[clip] = own
        assert np.allclose(store.leak(clip), leaks[clip], atol=1e-5)

    def drawn(share: float, mirror: float = 0.0) -> PairBatch:
        augment = AugmentConfig(other_leak=share, mirror=mirror)
        return pair_batch(store, 0, 1, range(64), sampling=SAMPLING, augment=augment)

    plain, leaked, half = drawn(0.0), drawn(1.0), drawn(0.5)
    assert torch.equal(leaked.source_state.beta, plain.source_state.beta)
    change = leaked.state.beta - plain.state.beta  # another clip's leak less the own: the same number in all 64 places
    assert torch.allclose(change, change[:, :1].expand(-1, 64), atol=1e-4)
    assert set((change[:, 0] / 10).round().tolist()) > {0.0, 1.0, -1.0}
    assert torch.allclose(change[:, 0] / 10, (change[:, 0] / 10).round(), atol=1e-4)
    moved = (half.state.beta != plain.state.beta).any(dim=1)
    assert 10 <= int(moved.sum()) <= 35  # about half of them, less those that drew their own clip
    assert torch.equal(half.state.beta[moved], leaked.state.beta[moved])
    assert torch.equal(drawn(1.0, mirror=1.0).state.beta, drawn(0.0, mirror=1.0).state.beta)


def test_clips_without_the_true_expression_keep_their_beta(store: FrameStore) -> None:
    for clip in range(len(store.dataset)):
        own = dict(store.arrays(clip))
        del own["true_beta"]
        store._arrays[clip] = own
        assert store.leak(clip) is None
    plain = pair_batch(store, 0, 1, range(8), sampling=SAMPLING, augment=NOTHING)
    assert torch.equal(
        pair_batch(store, 0, 1, range(8), sampling=SAMPLING, augment=AugmentConfig(other_leak=1.0)).state.beta,
        plain.state.beta,
    )


def test_the_asked_share_of_surface_points_is_drawn_among_those_that_moved() -> None:
    source = np.random.default_rng(0).normal(size=(1024, 3)).astype(np.float32)
    driving = source.copy()
    driving[:100, 1] += 0.02  # a tenth of the points moved by a centimetre
    rng = np.random.default_rng(1)
    for share, least, most in ((0.0, 10, 45), (0.25, 64, 85), (1.0, 100, 100)):
        sampling = PairSampling(raw_size=8, surface_points=256, moving_share=share)
        chosen = _chosen_points(source, driving, rng, sampling)
        assert len(chosen) == len(set(chosen.tolist())) == 256
        assert least <= int((chosen < 100).sum()) <= most
    # Points that moved a little are drawn about half as often as those that moved far (d / (d + 1.4 mm)).
    driving = source + np.where(np.arange(1024) < 512, 0.003, 3.0).astype(np.float32)[:, None] / np.float32(3**0.5)
    sampling = PairSampling(raw_size=8, surface_points=30, moving_share=1.0)
    near = np.mean([(_chosen_points(source, driving, rng, sampling) < 512).mean() for _ in range(400)])
    assert abs(near - 1 / 3) < 0.03


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_moving_points_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"moving_share must lie in 0\.\.1; got"):
        PairSampling(moving_share=share)


def test_single_weights_are_told_to_the_asked_share_and_change_sides_in_a_mirror(store: FrameStore) -> None:
    def drawn(share: float, mirror: float = 0.0) -> torch.Tensor:
        sampling = PairSampling(raw_size=8, weights_known=share, weights_noise=0.0)
        batch = pair_batch(store, 0, 1, range(32), sampling=sampling, augment=AugmentConfig(mirror=mirror))
        assert batch.state.weights is not None
        return batch.state.weights

    told, half, mirrored = drawn(1.0), drawn(0.5), drawn(1.0, mirror=1.0)
    tongue = ARKIT_NAMES.index("tongueOut")
    assert told[:, tongue].isnan().all() and not told[:, :tongue].isnan().any()
    withheld = half.isnan().all(dim=1)
    assert 6 < withheld.sum() < 26 and torch.equal(half[~withheld][:, :tongue], told[~withheld][:, :tongue])
    left, right = ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")
    assert torch.equal(mirrored[:, left], told[:, right]) and torch.equal(mirrored[:, right], told[:, left])
    plain = pair_batch(store, 0, 1, range(32), sampling=PairSampling(raw_size=8), augment=NOTHING)
    assert plain.state.weights is None


def test_the_heads_weights_become_arkits_by_name() -> None:
    weights = np.zeros((1, 53), np.float32)
    for name, value in (("browInnerUp_L", 0.4), ("browInnerUp_R", 0.8), ("mouthSmile_R", 0.5), ("jawLeft", 0.3)):
        weights[0, EXPRESSION_NAMES.index(name)] = value
    found = dict(zip(ARKIT_NAMES, arkit_weights(weights)[0], strict=True))
    assert found["browInnerUp"] == pytest.approx(0.6)  # the mean of both sides
    assert (found["mouthSmileRight"], found["mouthSmileLeft"], found["jawLeft"]) == pytest.approx((0.5, 0.0, 0.3))
    order = MIRRORED_ARKIT
    assert ARKIT_NAMES[order[ARKIT_NAMES.index("jawLeft")]] == "jawRight"
    assert np.array_equal(order[order], np.arange(52))
