"""Sound as a driver: the mouth follows the voice, lids, brows and head a seeded generator (not in the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from export3d.animation.drivers import STILL_FPS, DrivingFrame
from export3d.errors import UsageError
from export3d.face_state import FaceState
from export3d.heads.clips.acting import listening
from export3d.heads.clips.motion import arkit_weights
from export3d.portrait import Model, PortraitModel
from export3d.speech import RATE_HZ, mouth_weights, phones_of, read_sound
from export3d.video.source import frame_rate, open_input, video_streams

_REST_S = 0.12
"""The first frame is at rest, since all else is told against it; the voice takes over within this time."""


class SoundDriver:
    """A voice drives: a sound file, or the sound of a film at the film's rate. Motions are relative to the portrait's face.

    Args:
        path: anything with a sound track.
        model: of the shipped kind; its maps tell the beta that goes with weights.
        seed: of blinks, brows, glances and head.

    Raises:
        UnreadableVideoError: No sound that can be decoded.
        UsageError: The paper's model, which knows no single weights.
        MissingExtraError: PocketSphinx is not installed.
    """

    problems: tuple[str, ...] = ()
    relative_only = True

    def __init__(self, path: str | Path, model: Model, *, seed: int = 0) -> None:
        if not isinstance(model, PortraitModel):
            raise UsageError(
                "sound drives single expression weights, which the paper's model lacks. Use the bundled model."
            )
        self.name = str(path)
        self.audio: Path | None = Path(path)
        sound = read_sound(path)
        self.fps = _video_rate(Path(path)) or STILL_FPS
        self.time_base = 1 / self.fps
        count = max(math.ceil(len(sound) / RATE_HZ * self.fps), 1)
        self.num_frames_hint: int | None = count
        times_s = np.arange(count) / float(self.fps)
        motion = listening(seed, count, float(self.fps))
        mouth = mouth_weights(phones_of(sound), sound, times_s, 0.5 / float(self.fps))
        weights = np.maximum(np.nan_to_num(arkit_weights(motion.weights)), mouth)
        begun = np.clip(times_s / _REST_S, 0.0, 1.0)[:, None].astype(np.float32)
        told = torch.from_numpy(weights * begun)
        beta = model.cues.maps().beta_change(told)
        self._state = FaceState(beta=beta, weights=told, gaze=torch.from_numpy(motion.gaze * begun))
        self._cameras = motion.camera().to_vector().float().numpy()

    def __iter__(self) -> Iterator[DrivingFrame]:
        for index, camera in enumerate(self._cameras):
            state = self._state[index : index + 1]
            yield DrivingFrame(state=state, camera=camera, found=True, index=index, pts=index, duration=1)

    def close(self) -> None:
        """Nothing to release."""


def _video_rate(path: Path) -> Fraction | None:
    """Frames per second of a film; None of a sound without pictures."""
    with closing(open_input(path)) as container:
        pictures = next(video_streams(container), None)
        return None if pictures is None else frame_rate(pictures) or STILL_FPS
