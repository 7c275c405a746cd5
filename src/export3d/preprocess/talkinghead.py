"""TalkingHead-1KH's layout: lists of tubes, one-minute clips, cropped clips (docs/data.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export3d.errors import UsageError
from export3d.preprocess.folder import choose_split, walk_files
from export3d.preprocess.jobs import VIDEO_SUFFIXES, Cut, Inputs, Loss, VideoJob, display_name, inside
from export3d.preprocess.options import PrepareOptions
from export3d.reading import reading, shortened

LIST_SUFFIX = "_video_tubes.txt"
SETS = {"train": "train", "val": "test", "small": "train"}
"""Set of the lists -> split: the paper tests on clips of `val`."""

_CROPPED = re.compile(r"(?P<name>.+)_S(?P<S>\d+)_E(?P<E>\d+)_L(?P<L>\d+)_T(?P<T>\d+)_R(?P<R>\d+)_B(?P<B>\d+)")
_MINUTE = re.compile(r"(?P<id>.+)_\d{4}")


@dataclass(frozen=True)
class Tube:
    """One line `name,H,W,S,E,L,T,R,B`: a box in the frames S to E of a one-minute clip, both included."""

    name: str
    height: int
    width: int
    first_frame: int
    last_frame: int
    left: int
    top: int
    right: int
    bottom: int

    @staticmethod
    def parse(line: str, where: str) -> Tube:
        """Read one line of a list.

        Raises:
            UsageError: Not nine fields, not whole numbers, or an empty range or box.
        """
        fields = line.strip().split(",")
        if len(fields) != 9 or not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", field) for field in fields[1:]):
            raise UsageError(f"{where}: expected name,H,W,S,E,L,T,R,B with whole numbers; got '{shortened(line)}'.")
        height, width, first, last, left, top, right, bottom = map(int, fields[1:])
        if first > last or left >= right or top >= bottom or not height or not width:
            raise UsageError(f"{where}: expected S <= E, L < R and T < B; got '{shortened(line)}'.")
        return Tube(fields[0], height, width, first, last, left, top, right, bottom)

    @property
    def place(self) -> str:
        """Frames and box as a name."""
        return f"S{self.first_frame}_E{self.last_frame}_L{self.left}_T{self.top}_R{self.right}_B{self.bottom}"

    @property
    def cropped_name(self) -> str:
        """Stem of the cropped clip that the data set's own scripts make from this tube."""
        return f"{self.name}_{self.place}"


def identity_of(name: str) -> str:
    """The video's id: the name of a one-minute clip without its four digits."""
    match = _MINUTE.fullmatch(name)
    return match["id"] if match else name


def read_talkinghead(root: Path, options: PrepareOptions) -> Inputs:
    """Cropped clips where they exist, else tubes cut out of the one-minute clips; without lists, all cropped clips.

    With `--context full` the one-minute clips are preferred, since only they hold the surroundings.

    Raises:
        UsageError: A malformed list.
    """
    videos: dict[str, Path] = {}
    ignored: list[str] = []
    lists: list[Path] = []
    for path in walk_files(root):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            videos[path.stem] = path
        elif path.name.endswith(LIST_SUFFIX):
            lists.append(path)
        else:
            ignored.append(display_name(path.relative_to(root)))
    jobs: list[VideoJob] = []
    losses: list[Loss] = []
    used: set[str] = set()
    tubes_of: dict[Path, list[tuple[Tube, str]]] = {}
    for path in lists:
        split = SETS.get(path.name.removesuffix(LIST_SUFFIX), "train")
        with reading(path, "not a list in UTF-8", UsageError):
            lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            tube = Tube.parse(line, f"{display_name(path)}, line {number}")
            if tube.cropped_name in used:
                continue
            used.add(tube.cropped_name)
            cropped, minute = videos.get(tube.cropped_name), videos.get(tube.name)
            if minute is not None and (cropped is None or options.context == "full"):
                tubes_of.setdefault(minute, []).append((tube, split))
            elif cropped is not None:
                jobs.append(_cropped_job(cropped, tube.name, split, root, options))
            else:
                reason = f"neither the cropped clip nor the one-minute clip '{tube.name}' is here"
                losses.append(Loss(source=display_name(tube.cropped_name), reason=reason))
    for path, tubes in tubes_of.items():
        cuts = (_tube_cut(tube, split, options) for tube, split in tubes)
        jobs.append(VideoJob.of_video(inside(root, path), path, cuts))
    for stem, path in videos.items():
        match = _CROPPED.fullmatch(stem)
        if match and stem not in used and not lists:
            split = next((SETS[part] for part in path.relative_to(root).parts if part in SETS), "train")
            jobs.append(_cropped_job(path, match["name"], split, root, options))
    return Inputs(jobs=tuple(jobs), losses=tuple(losses), ignored=tuple(ignored))


def _cropped_job(path: Path, name: str, split: str, root: Path, options: PrepareOptions) -> VideoJob:
    identity = identity_of(name)
    cut = Cut(identity=identity, split=choose_split(identity, options, split))
    return VideoJob.of_video(inside(root, path), path, (cut,))


def _tube_cut(tube: Tube, split: str, options: PrepareOptions) -> Cut:
    identity = identity_of(tube.name)
    middle = [(tube.left + tube.right) / 2, (tube.top + tube.bottom) / 2]
    return Cut(
        name=tube.place,
        identity=identity,
        split=choose_split(identity, options, split),
        first_frame=tube.first_frame,
        last_frame=tube.last_frame,
        box=(tube.left, tube.top, tube.right, tube.bottom) if options.context == "crop" else None,
        listed_size=(tube.width, tube.height),
        # In the full frame the middle of the box says which face is meant.
        guide=np.array([middle] * 5, dtype=np.float32).tobytes() if options.context == "full" else b"",
    )
