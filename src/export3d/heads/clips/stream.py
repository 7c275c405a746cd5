"""Heads rendered while training goes on: the clips of `export3d heads render` without files (Sec. 4.1)."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from export3d.camera import Camera
from export3d.data import Clip
from export3d.errors import UsageError
from export3d.heads.clips.extractor import LinearExtractor
from export3d.heads.clips.one_clip import ClipsConfig, clip_arrays, clip_key, render_clip, static_scene
from export3d.heads.shape.model_file import load_head
from export3d.heads.shape.parametric import ParametricHead

_VISITORS = 8  # clips outside the pool that were asked for last (sample sheets)
_CACHED_ARRAYS = 256  # about 0.5 MB each for 40 frames
_PICTURES = ("background.png", "0000.mask.png", "0000.depth.png")


@dataclass(frozen=True, kw_only=True)
class HeadStreamConfig:
    """Everything that decides the samples of a stream."""

    clips: ClipsConfig
    """The clips; `identities` is how many people there are in all. After the last one the first comes again."""
    pool: int = 32
    """People that one training step can draw from."""
    renew_every: int = 4
    """Training steps after which the oldest of the pool leaves and the next person comes in."""

    def __post_init__(self) -> None:
        for name, least in (("pool", 1), ("renew_every", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}: expected at least {least}; got {getattr(self, name)}.")
        if self.clips.split == "test":
            raise UsageError("A stream of heads is for training and validation; the split 'test' is never streamed.")


class HeadStream:
    """Clips that are rendered when they are needed, in a background thread; a :class:`ClipSource`.

    Clip i is identity i of the split, and equals what `export3d heads render` writes for it. At step s the pool
    holds the clips ``s // renew_every + j`` for j below `pool`, counted round the identities, so what a step draws
    depends on (seed, step) alone. A clip is rendered once while it stays in the pool, all its frames in batches; a
    few clips that come next are rendered ahead. Memory: about ``pool * frames * size^2 * 6`` bytes.

    Args:
        head: The head model; None looks for one as :func:`load_head` does.
        extractor: Makes beta-hat; None builds the standard one of the head.
        device: Where heads are prepared and rendered. Clips are handed out as arrays in main memory.
    """

    def __init__(
        self,
        config: HeadStreamConfig,
        head: ParametricHead | None = None,
        extractor: LinearExtractor | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        head = head or load_head()
        self._extractor = extractor or LinearExtractor.build(head.to("cpu"))
        self._head = head.to(device)
        self._seeds = config.clips.seeds()
        self._clips: dict[int, Future[Clip]] = {}
        self._visitors: OrderedDict[int, None] = OrderedDict()
        self._pool: frozenset[int] = frozenset()
        self._lock = threading.Lock()
        # One thread: clips come in their order, and everything on the device happens in one place.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export3d-heads")
        self._cached_arrays = functools.lru_cache(maxsize=_CACHED_ARRAYS)(self._make_arrays)

    def __len__(self) -> int:
        return len(self._seeds)

    @property
    def name(self) -> str:
        """For messages."""
        return f"stream of {len(self)} {self.config.clips.split} heads"

    @property
    def keys(self) -> tuple[str, ...]:
        """Clip keys in order."""
        return tuple(clip_key(self.config.clips.split, seed) for seed in self._seeds)

    @property
    def size(self) -> int:
        """Side of the square frames in pixels."""
        return self.config.clips.size

    @property
    def extractor(self) -> dict[str, str]:
        """`name`, `version`, `sha256`, `expression_space` of what made `beta`."""
        return dict(self._extractor.info)

    @property
    def in_memory(self) -> bool:
        """True: the pool keeps its pictures."""
        return True

    @property
    def num_held(self) -> int:
        """Clips in memory, or on their way: at most the pool, a quarter more, and a few visitors."""
        return len(self._clips)

    def facts(self) -> dict[str, Any]:
        """Head model, extractor and settings: what a resumed run must find again."""
        return {"extractor": self.extractor, "head": self._head.name, "stream": asdict(self.config)}

    def clips_at(self, step: int, min_frames: int = 1) -> np.ndarray:
        """The clips of the pool at a step; also has them, and the ones that come next, rendered."""
        count, config = len(self), self.config
        if config.clips.frames < min_frames:
            return np.zeros(0, dtype=np.int64)
        first = step // config.renew_every
        pool = (first + np.arange(min(config.pool, count))) % count
        ahead = (first + config.pool + np.arange(max(1, config.pool // 4))) % count
        with self._lock:
            self._pool = frozenset([*pool.tolist(), *ahead.tolist()])
            for index in [i for i in self._clips if i not in self._pool and i not in self._visitors]:
                self._clips.pop(index).cancel()
            for index in [*pool.tolist(), *ahead.tolist()]:
                self._request(index)
        return pool

    def num_frames(self, index: int) -> int:
        """T, the same for all clips."""
        return self.config.clips.frames

    def identity(self, index: int) -> str:
        """Who is seen in clip `index`."""
        return clip_key(self.config.clips.split, self._seeds[index])

    def meta(self, index: int) -> dict[str, Any]:
        """The clip's JSON member."""
        return self.clip(index).meta

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """The clip's float32 arrays by name; do not change them. Outside the pool no picture is rendered for it."""
        index = self._place(index)
        with self._lock:
            rendered = index in self._clips
        return self.clip(index).arrays if rendered else self._cached_arrays(index)

    def head_angles(self, index: int) -> np.ndarray:
        """``(T, 3)`` yaw, pitch, roll of the head in radians."""
        camera = torch.from_numpy(self.arrays(index)["camera"].copy())
        return Camera.from_vector(camera).head_angles().numpy()

    def in_room(self, index: int) -> bool:
        """Whether the head turns against torso and light; see `ClipDataset.in_room`."""
        return not static_scene(self._seeds[self._place(index)], self.config.clips)

    def frame(self, index: int, time: int) -> np.ndarray:
        """Frame `time` of clip `index`: ``(H, W, 3)`` uint8 RGB."""
        return self.clip(index).frames[time]

    def mask(self, index: int, time: int) -> np.ndarray:
        """Foreground alpha: ``(H, W)`` uint8."""
        return self._truth(index, "masks")[time]

    def depth(self, index: int, time: int) -> np.ndarray:
        """``(H, W)`` uint16, scene units x `DEPTH_STEPS`; 0 is background."""
        return self._truth(index, "depths")[time]

    def background(self, index: int) -> np.ndarray:
        """Clean background: ``(H, W, 3)`` uint8."""
        return self._truth(index, "background")

    def has(self, index: int, member: str) -> bool:
        """Whether a clip has a member: pictures of the truth always, arrays by name."""
        return member in _PICTURES or member.removesuffix(".npy") in self.arrays(index)

    def clip(self, index: int) -> Clip:
        """The whole clip; waits until it is rendered."""
        index = self._place(index)
        while True:
            with self._lock:
                if index not in self._pool:
                    self._visit(index)
                job = self._request(index)
            try:
                return job.result()
            except CancelledError:  # the pool moved on while we waited: ask again, now as a visitor
                continue

    def close(self) -> None:
        """Stop rendering; the stream cannot be read afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _truth(self, index: int, name: str) -> np.ndarray:
        found = getattr(self.clip(index), name)
        assert found is not None
        return found

    def _visit(self, index: int) -> None:
        """Keep a clip outside the pool until `_VISITORS` others were asked for. The caller holds the lock."""
        self._visitors[index] = None
        self._visitors.move_to_end(index)
        while len(self._visitors) > _VISITORS:
            oldest, _ = self._visitors.popitem(last=False)
            if oldest not in self._pool:
                self._clips.pop(oldest, None)

    def _request(self, index: int) -> Future[Clip]:
        """The job that renders a clip; made if there is none. The caller holds the lock."""
        job = self._clips.get(index)
        if job is None:
            job = self._thread.submit(self._render, index)
            self._clips[index] = job
        return job

    def _place(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"clip index {index}; the stream holds {count} clips")
        return index % count

    @torch.no_grad()
    def _render(self, index: int) -> Clip:
        clip = render_clip(self._head, self._extractor, self._seeds[index], self.config.clips)
        for array in clip.arrays.values():
            array.setflags(write=False)
        return clip

    def _make_arrays(self, index: int) -> dict[str, np.ndarray]:
        job = self._thread.submit(clip_arrays, self._head, self._extractor, self._seeds[index], self.config.clips)
        return job.result()
