"""A sound drives a portrait: the frames that a driver makes of it, and which files are taken for sounds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pocketsphinx")

from export3d.animation import SoundDriver, open_driver
from export3d.errors import UsageError
from export3d.face_state import ARKIT_NAMES
from export3d.portrait import PortraitModel, build_model, preset

sys.path.insert(0, str(Path(__file__).parents[1] / "speech"))

from test_speech import tone, write_wav


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sound = np.concatenate([np.zeros(8000, np.float32), tone(1.0), np.zeros(4000, np.float32)])
    return write_wav(tmp_path_factory.mktemp("sound") / "a.wav", sound)


def test_a_sound_gives_25_frames_a_second_from_rest_with_its_own_audio(tiny_model: PortraitModel, spoken: Path) -> None:
    driver = SoundDriver(spoken, tiny_model, seed=3)
    frames = list(driver)
    assert (len(frames), driver.fps, driver.time_base * driver.fps, driver.audio) == (44, 25, 1, spoken)
    jaw = [float(f.state.weights[0, ARKIT_NAMES.index("jawOpen")]) for f in frames if f.state.weights is not None]
    assert max(jaw[:11]) < 0.02 < 0.2 < min(jaw[15:35])
    first = frames[0].state
    assert first.weights is not None and not first.weights.any() and not first.beta.any()


@pytest.mark.slow
def test_the_seed_decides_blinks_and_head_and_nothing_else(tiny_model: PortraitModel, spoken: Path) -> None:
    same, again, other = (SoundDriver(spoken, tiny_model, seed=s) for s in (1, 1, 2))
    for a, b, c in zip(same, again, other, strict=True):
        assert np.array_equal(a.camera, b.camera) and a.state.same_as(b.state)
        assert a.state.weights is not None and c.state.weights is not None
        jaw = ARKIT_NAMES.index("jawOpen")
        assert a.state.weights[0, jaw] == c.state.weights[0, jaw]
    assert not np.array_equal(list(same)[-1].camera, list(other)[-1].camera)


def test_beta_goes_with_the_weights_where_the_maps_were_fitted() -> None:
    torch.manual_seed(0)
    model = build_model(preset("tiny-portrait"))
    assert isinstance(model, PortraitModel)
    for part in model.cues.shapes:
        part.set_map(0.2 * torch.randn_like(part.weight), torch.zeros_like(part.bias))
    change = torch.zeros(1, 52)
    change[0, ARKIT_NAMES.index("jawOpen")] = 1.0
    beta = model.cues.maps().beta_change(change)
    told = torch.nan_to_num(model.cues.weights(beta) - model.cues.weights(torch.zeros(1, 64)))
    assert told[0].argmax() == ARKIT_NAMES.index("jawOpen") and 0.5 < float(told.max()) <= 1.0


def test_a_file_without_pictures_drives_by_sound_and_the_papers_model_refuses(
    tiny_model: PortraitModel, spoken: Path
) -> None:
    def no_tracker() -> None:
        raise AssertionError("nothing is to be tracked")

    driver = open_driver(
        spoken, no_tracker, expression_space="ict64", by_sound=lambda path: SoundDriver(path, tiny_model)
    )
    assert isinstance(driver, SoundDriver)
    with pytest.raises(UsageError, match="the paper's model lacks"):
        SoundDriver(spoken, build_model(preset("tiny")))
