"""Heads rendered while training goes on: same samples for the same seed, exact resumption, train identities alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export3d.cli import main
from export3d.data import pair_at
from export3d.errors import DataError, UsageError
from export3d.expression.lebs import LeBS
from export3d.heads.clips.extractor import ExtractorConfig, LinearExtractor
from export3d.heads.clips.one_clip import ClipsConfig, render_clip
from export3d.heads.clips.splits import SPLITS
from export3d.heads.clips.stream import HeadStream, HeadStreamConfig
from export3d.heads.shape.parametric import ParametricHead
from export3d.heads.shape.procedural import procedural_head
from export3d.training.batches.augment import AugmentConfig
from export3d.training.batches.clip_batches import clip_batch
from export3d.training.batches.frame_store import FrameStore
from export3d.training.batches.pair_batches import PairSampling, pair_batch
from export3d.training.loop.distributed import World
from export3d.training.phases.config import TINY_TRAIN
from export3d.training.phases.train import TrainTask

SIZE = TINY_TRAIN.model.image_size
CLIPS = ClipsConfig(identities=4, frames=3, size=SIZE, supersample=1, quality="fast")
CONFIG = HeadStreamConfig(clips=CLIPS, pool=2, renew_every=1)
CHANGES = AugmentConfig(other_background=0.7, mirror=0.5, color_gain=0.1)


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    return procedural_head()


@pytest.fixture(scope="module")
def extractor(head: ParametricHead) -> LinearExtractor:
    return LinearExtractor.build(head, ExtractorConfig(statistics_identities=4, statistics_frames=4))


@pytest.fixture(scope="module")
def open_stream(head: ParametricHead, extractor: LinearExtractor) -> Iterator[Callable[..., HeadStream]]:
    opened = []

    def make(config: HeadStreamConfig = CONFIG) -> HeadStream:
        opened.append(HeadStream(config, head, extractor))
        return opened[-1]

    yield make
    for stream in opened:
        stream.close()


@pytest.fixture(scope="module")
def stream(open_stream: Callable[..., HeadStream]) -> HeadStream:
    return open_stream()


@pytest.fixture(scope="module")
def again(open_stream: Callable[..., HeadStream]) -> HeadStream:
    """The same stream, opened a second time."""
    return open_stream()


def test_a_clip_of_the_stream_is_the_clip_that_heads_render_writes(
    stream: HeadStream, head: ParametricHead, extractor: LinearExtractor
) -> None:
    arrays = stream.arrays(1)  # asked for before any picture: made without rendering
    assert stream.num_held == 0
    written = render_clip(head, extractor, SPLITS["train"][1], CLIPS)
    assert written.masks is not None and written.depths is not None and written.background is not None
    for time in range(3):
        assert np.array_equal(stream.frame(1, time), written.frames[time])
        assert np.array_equal(stream.mask(1, time), written.masks[time])
        assert np.array_equal(stream.depth(1, time), written.depths[time])
    assert np.array_equal(stream.background(1), written.background)
    assert stream.arrays(1).keys() == arrays.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        assert np.array_equal(stream.arrays(1)[name], array) and np.array_equal(arrays[name], array), name
    assert stream.meta(1) == written.meta
    assert stream.identity(1) == stream.keys[1] == written.key
    assert stream.in_room(1) == (not written.meta["extra"]["static_scene"])


def test_the_pool_moves_by_one_person_and_comes_round(open_stream: Callable[..., HeadStream]) -> None:
    stream = open_stream(replace(CONFIG, clips=replace(CLIPS, identities=5), renew_every=2))
    # Steps 0 and 1 draw from people 0 and 1; every second step one leaves; person 4 is followed by person 0.
    pools = {step: stream.clips_at(step).tolist() for step in (0, 1, 2, 8, 10)}
    assert pools == {0: [0, 1], 1: [0, 1], 2: [1, 2], 8: [4, 0], 10: [0, 1]}
    assert len(stream.clips_at(0, min_frames=4)) == 0
    stream.close()


def test_a_long_run_holds_no_more_than_the_pool_and_what_comes_next(stream: HeadStream) -> None:
    for step in range(8):
        pair_at(stream, 0, step, 0)
    assert stream.num_held <= 3 + 1  # a pool of 2, one ahead, and the visitor of the test above


def test_the_same_seed_and_step_give_the_same_samples(stream: HeadStream, again: HeadStream) -> None:
    def batch(source: HeadStream, seed: int, step: int) -> list[torch.Tensor]:
        store = FrameStore(source, 2**20)
        sampling = PairSampling(raw_size=8, frontal_share=0.5)
        pairs = pair_batch(store, seed, step, range(3), sampling=sampling, augment=CHANGES, with_truth=True)
        clips = clip_batch(store, seed, step, range(1), num_frames=3, augment=CHANGES)
        assert pairs.mask is not None and pairs.depth is not None
        return [pairs.source, pairs.driving, pairs.state.beta, pairs.camera, pairs.mask, pairs.depth, clips.images]

    first = batch(stream, 7, 3)
    batch(again, 7, 1)  # another history
    assert all(torch.equal(a, b) for a, b in zip(first, batch(again, 7, 3), strict=True))
    assert not torch.equal(first[0], batch(again, 8, 3)[0])


def test_training_from_a_stream_resumes_bit_for_bit(stream: HeadStream, again: HeadStream) -> None:
    def task(source: HeadStream) -> TrainTask:
        torch.manual_seed(5)
        return TrainTask(TINY_TRAIN, source, World(), expression=LeBS(TINY_TRAIN.model.expression))

    whole = task(stream)
    for step in range(4):
        whole.step(step, whole.load_batch(step))
    first = task(again)
    for step in range(2):
        first.step(step, first.load_batch(step))
    second = task(again)
    second.load_state(first.state())
    for step in range(2, 4):
        second.step(step, second.load_batch(step))
    expected, got = whole.state()["model"], second.state()["model"]
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert any(not torch.equal(expected[name], first.state()["model"][name]) for name in expected)


def test_only_people_of_the_train_split_are_drawn_and_test_heads_are_never_streamed(
    open_stream: Callable[..., HeadStream],
) -> None:
    stream = open_stream(replace(CONFIG, clips=replace(CLIPS, identities=len(SPLITS["train"]))))
    assert len(stream) == 1_000_000  # the whole split
    assert [stream.identity(i) for i in (0, -1)] == ["head-train-0000000", "head-train-0999999"]
    stream.close()
    with pytest.raises(UsageError, match="the split 'test' is never streamed"):
        HeadStreamConfig(clips=replace(CLIPS, split="test"))
    with pytest.raises(UsageError, match="got 999999 to 1000000"):
        replace(CLIPS, identities=2, seed=999_999)


def test_single_frames_make_no_pairs(open_stream: Callable[..., HeadStream]) -> None:
    stream = open_stream(replace(CONFIG, clips=replace(CLIPS, frames=1)))
    with pytest.raises(DataError, match=r"stream of 4 train heads: clip head-train-000000\d has one frame"):
        pair_at(stream, 0, 0, 0)
    stream.close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "either --data FOLDER or --heads-stream N"),
        (["--data", "somewhere", "--heads-stream", "4"], "either --data FOLDER or --heads-stream N"),
        (["--heads-stream", "4", "--split", "test"], "people of the split 'train' alone; got --split test"),
        (["--heads-stream", "1000001"], "has identities 0 to 999999"),
        (["--heads-stream", "4", "--heads.pool", "0"], "pool: expected at least 1; got 0"),
    ],
)
def test_wrong_requests_for_a_stream_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    output = str(tmp_path / "run")
    assert main(["pretrain", "--preset", "tiny", "--device", "cpu", "-o", output, *arguments]) == 2
    assert text in " ".join(capsys.readouterr().err.split())
