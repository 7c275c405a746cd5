"""Who is animated by whom (Sec. 4.2): same-identity and cross-identity pairs, fixed by a seed and stored in a file.

Same identity: every frame of a clip drives a frontal frame of the same clip. Cross identity (the paper publishes no
list): clips sorted by key, clip i is driven by the next clip of another person, the last by the first (LAM's rule).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from export3d.data import ClipDataset
from export3d.errors import DataError
from export3d.files import write_json
from export3d.reading import checked, read_json, reading, shortened

FORMAT = "export3d-pairs"
VERSION = 1

Kind = Literal["same", "cross"]


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How sources are chosen."""

    frontal_deg: float = 10.0
    """A source frame has yaw and pitch below this; without such a frame the most frontal one is taken."""
    seed: int = 0
    """Seed of the choice among the frontal frames. Each clip's choice depends on the seed and its own key only."""


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What a protocol needs to know of a clip.

    Attributes:
        key: the clip's key in its data set.
        identity: who is seen.
        head_angles: ``(T, 3)`` yaw, pitch, roll in radians.
        usable: ``(T,)`` bool, False where no face was found; such a frame is never a source.
    """

    key: str
    identity: str
    head_angles: np.ndarray
    usable: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One frame of one clip, animated by all frames of a clip."""

    kind: Kind
    source_clip: str
    source_frame: int
    driving_clip: str


def dataset_facts(dataset: ClipDataset) -> list[ClipFacts]:
    """Facts of every clip of a data set; frames tracked with confidence 0 are not usable."""
    return [
        ClipFacts(
            key=key,
            identity=dataset.identity(index),
            head_angles=dataset.head_angles(index),
            usable=dataset.arrays(index)["confidence"] > 0,
        )
        for index, key in enumerate(dataset.keys)
    ]


def frontal_frame(clip: ClipFacts, config: ProtocolConfig | None = None) -> int:
    """The clip's source frame: random among the frontal ones, else the most frontal one.

    Raises:
        DataError: No frame of the clip has a face.
    """
    config = config or ProtocolConfig()
    turned = np.abs(clip.head_angles[:, :2])  # yaw, pitch
    usable = np.flatnonzero(clip.usable)
    if len(usable) == 0:
        raise DataError(f"clip {clip.key}: no frame has a face; it cannot be evaluated. Leave the clip out.")
    frontal = usable[(turned[usable] < math.radians(config.frontal_deg)).all(axis=1)]
    if len(frontal) == 0:
        return int(usable[np.argmin(np.hypot(*turned[usable].T))])
    digest = hashlib.sha256(f"{config.seed}|{clip.key}".encode()).digest()
    return int(frontal[np.random.default_rng(int.from_bytes(digest[:8], "big")).integers(len(frontal))])


def same_identity_pairs(clips: Sequence[ClipFacts], config: ProtocolConfig | None = None) -> list[Pair]:
    """Each clip drives its own frontal frame, sorted by key."""
    return [
        Pair(kind="same", source_clip=clip.key, source_frame=frontal_frame(clip, config), driving_clip=clip.key)
        for clip in _sorted(clips)
    ]


def cross_identity_pairs(clips: Sequence[ClipFacts], config: ProtocolConfig | None = None) -> list[Pair]:
    """Each clip's frontal frame is driven by the next clip of another person, sorted by key, cyclic.

    Raises:
        DataError: All clips show one person.
    """
    ordered = _sorted(clips)
    if len({clip.identity for clip in ordered}) < 2:
        raise DataError("cross-identity pairs need clips of at least two people; the data set has one.")
    pairs = []
    for index, clip in enumerate(ordered):
        others = ordered[index + 1 :] + ordered[:index]
        driver = next(other for other in others if other.identity != clip.identity)
        frame = frontal_frame(clip, config)
        pairs.append(Pair(kind="cross", source_clip=clip.key, source_frame=frame, driving_clip=driver.key))
    return pairs


def write_pairs(path: str | Path, pairs: Sequence[Pair]) -> None:
    """Store pairs as JSON, so that others can evaluate the very same ones.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    content = {"format": FORMAT, "version": VERSION, "pairs": [asdict(pair) for pair in pairs]}
    write_json(path, content)


def read_pairs(path: str | Path, clips: Sequence[ClipFacts]) -> list[Pair]:
    """Read stored pairs and check them against the clips at hand.

    Raises:
        DataError: Not a list of pairs, another version, an unknown clip, or a frame that the clip does not have.
    """
    path = Path(path)
    remedy = "Write it again."
    content = read_json(path, "not a readable list of pairs", DataError, remedy)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise DataError(
            f"{path}: format '{shortened(content.get('format'))}' version {shortened(content.get('version'))}; expected "
            f"'{FORMAT}' version {VERSION}."
        )
    with reading(path, "not a readable list of pairs", DataError, remedy):
        rows = checked(content.get("pairs"), list[Pair])
    known = {clip.key: clip for clip in clips}
    for pair in rows:
        missing = [key for key in (pair.source_clip, pair.driving_clip) if key not in known]
        if missing:
            raise DataError(f"{path}: clip '{shortened(missing[0])}' is not in the data set.")
        if not 0 <= pair.source_frame < len(known[pair.source_clip].head_angles):
            raise DataError(
                f"{path}: '{pair.kind}' pair with frame {pair.source_frame} of clip '{pair.source_clip}' does not exist."
            )
    return rows


def _sorted(clips: Sequence[ClipFacts]) -> list[ClipFacts]:
    if not clips:
        raise DataError("the data set has no clips; there is nothing to evaluate.")
    return sorted(clips, key=lambda clip: clip.key)
