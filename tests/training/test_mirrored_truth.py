"""The true beta of a mirrored face follows from frames that know weights and true beta, and gives the mirrored leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.data import ClipDataset
from export3d.face_state import mirrored_name
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.shape.parametric import EXPRESSION_NAMES
from export3d.heads.shape.procedural import procedural_head
from export3d.training.batches.augment import AugmentConfig
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.mirrored_truth import mirrored_truth, mirrored_truth_map
from export3d.training.batches.pair_batches import PairSampling, pair_batch


def known_clips(extractor: LinearExtractor, people: int, frames: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    clips = []
    for _ in range(people):
        weights = rng.uniform(size=(frames, 53)).astype(np.float32)
        clips.append({"weights": weights, "true_beta": extractor.true_beta(torch.from_numpy(weights)).numpy()})
    return clips


@pytest.fixture(scope="module")
def extractor() -> LinearExtractor:
    return LinearExtractor.build(procedural_head(), ExtractorConfig(statistics_identities=4, statistics_frames=4))


def test_the_true_beta_of_a_mirrored_face_is_the_extractors_own_for_swapped_weights(
    extractor: LinearExtractor,
) -> None:
    truth_map = mirrored_truth_map(known_clips(extractor, people=8, frames=16))
    assert truth_map is not None
    left = np.zeros((1, 53), np.float32)
    for name, value in (("jawLeft", 0.4), ("eyeBlink_L", 0.7), ("jawOpen", 0.2)):
        left[0, EXPRESSION_NAMES.index(name)] = value
    right = np.zeros((1, 53), np.float32)
    for name, value in (("jawRight", 0.4), ("eyeBlink_R", 0.7), ("jawOpen", 0.2)):
        right[0, EXPRESSION_NAMES.index(name)] = value
    expected = extractor.true_beta(torch.from_numpy(right)).numpy()
    assert np.allclose(mirrored_truth(left, truth_map), expected, atol=1e-3 * np.abs(expected).max())
    assert not np.allclose(extractor.true_beta(torch.from_numpy(left)).numpy(), expected, atol=0.1)


def test_weights_that_never_move_or_only_together_are_no_hindrance(extractor: LinearExtractor) -> None:
    # The eyes of synthetic heads look up together, one inwards while the other looks outwards, and never squint crosswise.
    place = EXPRESSION_NAMES.index
    clips = known_clips(extractor, people=8, frames=16)
    for clip in clips:
        weights = clip["weights"]
        weights[:, place("eyeLookUp_R")] = weights[:, place("eyeLookUp_L")]
        for side, other in ("LR", "RL"):
            weights[:, place(f"eyeLookIn_{side}")] = weights[:, place(f"eyeLookOut_{other}")]
        weights[:, [place("cheekPuff_L"), place("cheekPuff_R")]] = 0.0
        clip["true_beta"] = extractor.true_beta(torch.from_numpy(weights)).numpy()
    truth_map = mirrored_truth_map(clips)
    assert truth_map is not None
    swapped = [place(mirrored_name(name)) for name in EXPRESSION_NAMES]
    expected = extractor.true_beta(torch.from_numpy(clips[0]["weights"][:, swapped])).numpy()
    found = mirrored_truth(clips[0]["weights"], truth_map)
    assert np.allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_weight_whose_partner_never_moves_gives_no_map(extractor: LinearExtractor) -> None:
    clips = known_clips(extractor, people=8, frames=16)
    for clip in clips:
        clip["weights"][:, EXPRESSION_NAMES.index("mouthSmile_L")] = 0.0
    assert mirrored_truth_map(clips) is None


def test_too_few_frames_and_clips_without_the_truth_give_no_map(extractor: LinearExtractor) -> None:
    clips = known_clips(extractor, people=2, frames=16)  # 32 frames for 54 unknowns
    assert mirrored_truth_map(clips) is None
    assert mirrored_truth_map([]) is None
    enough = known_clips(extractor, people=8, frames=16)
    del enough[1]["weights"]
    assert mirrored_truth_map(enough) is None


def test_mirrored_pairs_get_the_leak_that_another_person_has_when_mirrored(
    clip_folder: Path, extractor: LinearExtractor
) -> None:
    store = FrameStore(ClipDataset(clip_folder, split="train"), 2**28)
    rng = np.random.default_rng(4)
    num_clips, frames = len(store.dataset), store.dataset.num_frames(0)
    swapped = [EXPRESSION_NAMES.index(mirrored_name(name)) for name in EXPRESSION_NAMES]
    for clip in range(num_clips):
        own = dict(store.arrays(clip))
        many = rng.uniform(size=(200, 53)).astype(np.float32)
        own["weights"] = many[:frames] if clip else many  # the first alone has frames enough for the map
        own["true_beta"] = extractor.true_beta(torch.from_numpy(own["weights"])).numpy()
        mirrored = extractor.true_beta(torch.from_numpy(own["weights"][:, swapped])).numpy()
        own["beta_mirror"] = mirrored + np.float32(10.0 * clip)
        store._arrays[clip] = own
    for clip in range(num_clips):
        leak = store.leak(clip, mirrored=True)
        assert leak is not None and np.allclose(leak, 10.0 * clip, atol=0.05)

    def drawn(share: float) -> torch.Tensor:
        augment = AugmentConfig(other_leak=share, mirror=1.0)
        return pair_batch(store, 0, 1, range(64), sampling=PairSampling(raw_size=8), augment=augment).state.beta

    change = (drawn(1.0) - drawn(0.0)) / 10.0  # another clip's number less the own
    assert torch.allclose(change, change.round(), atol=0.01)
    assert torch.equal(change.round(), change[:, :1].round().expand(-1, 64))
    assert set(change[:, 0].round().tolist()) > {0.0, 1.0, -1.0}
