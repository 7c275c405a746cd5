"""Random access to the clips of a data set through the tar's own offsets (docs/data.md)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export3d.camera import Camera
from export3d.checks import check_choice
from export3d.data.clip import SPLITS, Clip, check_array, check_meta
from export3d.data.manifest import ClipEntry, Manifest, require_same_extractor
from export3d.data.tar_members import decode_array, decode_image, decode_meta, scan_members
from export3d.errors import DataError

_MAX_OPEN_SHARDS = 256  # beyond this a shard is opened for each read, so that huge sets stay within ulimit
_CACHED_ARRAYS = 128  # about 0.25 MB each for 250 frames
_CACHED_INDEXES = 8192  # about 20 kB each for 250 frames


class ClipDataset:
    """Clips of one folder, in the manifest's order.

    Reading has no shared file position (pread) and no locks of its own, so DataLoader workers, threads and
    forked processes can use one instance.

    Args:
        folder: holds `manifest.json` and the shards it lists.
        split: `train`, `val`, `test`, or None for all clips.

    Raises:
        DataError: Manifest missing or of another version; a shard missing or of the wrong length; no clip in
            `split`.
    """

    def __init__(self, folder: str | Path, split: str | None = None) -> None:
        self.folder = Path(folder)
        self.split = split
        self.manifest = Manifest.load(self.folder)
        for shard in self.manifest.shards:
            path = self.folder / shard.name
            if not path.is_file():
                raise DataError(f"{path}: the shard is missing; the manifest lists it. Copy the data set again.")
            if path.stat().st_size != shard.bytes:
                raise DataError(
                    f"{path}: damaged tar: {path.stat().st_size} bytes; the manifest says {shard.bytes}. "
                    "Copy the shard again or prepare it again."
                )
        clips = self.manifest.clips
        if split is not None:
            check_choice("split", split, SPLITS)
            clips = tuple(clip for clip in clips if clip.split == split)
        if not clips:
            raise DataError(f"{self.folder}: no clip{'' if split is None else f' of split {split}'} in the data set.")
        self._clips: tuple[ClipEntry, ...] = clips
        self._prepare_caches()

    def _prepare_caches(self) -> None:
        self._open_shards: dict[str, int] = {}
        self._members = functools.lru_cache(maxsize=_CACHED_INDEXES)(self._scan)
        self._cached_arrays = functools.lru_cache(maxsize=_CACHED_ARRAYS)(self._read_arrays)
        self._cached_meta = functools.lru_cache(maxsize=_CACHED_INDEXES)(self._read_meta)
        self._cached_angles = functools.lru_cache(maxsize=_CACHED_INDEXES)(self._head_angles)
        self._cached_lengths = functools.lru_cache(maxsize=8)(self._find_clips_of_length)

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def keys(self) -> tuple[str, ...]:
        """Clip keys in order."""
        return tuple(clip.key for clip in self._clips)

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """Clip key -> its index."""
        return {key: index for index, key in enumerate(self.keys)}

    @property
    def name(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    @property
    def in_memory(self) -> bool:
        """False: pictures are decoded each time they are asked for."""
        return False

    def facts(self) -> dict[str, Any]:
        """Extractor, shards by checksum, and split: what a resumed run must find again."""
        shards = [shard.sha256 for shard in self.manifest.shards]
        return {"extractor": self.extractor, "shards": shards, "split": self.split}

    @property
    def extractor(self) -> dict[str, str]:
        """`name`, `version`, `sha256`, `expression_space` of what made `beta`."""
        return dict(self.manifest.extractor)

    @property
    def size(self) -> int:
        """Side of the square frames in pixels."""
        return self.manifest.size

    def num_frames(self, index: int) -> int:
        """T of clip `index`."""
        return self._clips[index].frames

    def identity(self, index: int) -> str:
        """Who is seen in clip `index`."""
        return self._clips[index].identity

    def clips_of_length(self, min_frames: int) -> np.ndarray:
        """Indices of the clips with at least `min_frames` frames, increasing; cached."""
        return self._cached_lengths(min_frames)

    def clips_at(self, step: int, min_frames: int = 1) -> np.ndarray:
        """The same as `clips_of_length` at every step (a stream of rendered heads has other clips at other steps)."""
        return self.clips_of_length(min_frames)

    def meta(self, index: int) -> dict[str, Any]:
        """The clip's JSON member; do not change it (it is cached)."""
        return self._cached_meta(self._place(index))

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """The clip's float32 arrays by name, read-only and cached."""
        return self._cached_arrays(self._place(index))

    def head_angles(self, index: int) -> np.ndarray:
        """``(T, 3)`` yaw, pitch, roll of the head in radians, from the clip's cameras; cached."""
        return self._cached_angles(self._place(index))

    def in_room(self, index: int) -> bool:
        """Whether the head turns against torso and light, as before a resting camera: in any clip but a synthetic one with a
        static scene, where all that is seen is rigid."""
        return not self.meta(index).get("extra", {}).get("static_scene", False)

    def frame(self, index: int, time: int) -> np.ndarray:
        """Frame `time` of clip `index`: ``(H, W, 3)`` uint8 RGB."""
        name = f"{time:04d}.{self.manifest.frame_format}"
        return self._image(index, name, (self.size, self.size, 3), np.uint8)

    def frames(self, index: int) -> np.ndarray:
        """All frames of clip `index`: ``(T, H, W, 3)`` uint8 RGB."""
        return np.stack([self.frame(index, time) for time in range(self.num_frames(index))])

    def mask(self, index: int, time: int) -> np.ndarray:
        """Foreground alpha of a synthetic frame: ``(H, W)`` uint8."""
        return self._image(index, f"{time:04d}.mask.png", (self.size, self.size), np.uint8)

    def depth(self, index: int, time: int) -> np.ndarray:
        """Depth of a synthetic frame: ``(H, W)`` uint16, scene units x 16384; 0 is background."""
        return self._image(index, f"{time:04d}.depth.png", (self.size, self.size), np.uint16)

    def background(self, index: int) -> np.ndarray:
        """Clean background of a synthetic clip: ``(H, W, 3)`` uint8."""
        return self._image(index, "background.png", (self.size, self.size, 3), np.uint8)

    def has(self, index: int, member: str) -> bool:
        """Whether clip `index` stores a member, e.g. `background.png`, `0000.mask.png`, `true_beta.npy`."""
        index = self._place(index)
        return f"{self._clips[index].key}.{member}" in self._members(index)

    def clip(self, index: int) -> Clip:
        """The whole clip in memory."""
        times = range(self.num_frames(index))
        return Clip(
            key=self._clips[index].key,
            frames=self.frames(index),
            arrays=dict(self.arrays(index)),
            meta=self.meta(index),
            masks=np.stack([self.mask(index, t) for t in times]) if self.has(index, "0000.mask.png") else None,
            depths=np.stack([self.depth(index, t) for t in times]) if self.has(index, "0000.depth.png") else None,
            background=self.background(index) if self.has(index, "background.png") else None,
        )

    def close(self) -> None:
        """Close the shards; a later read opens them again."""
        while self._open_shards:
            os.close(self._open_shards.popitem()[1])

    def _place(self, index: int) -> int:
        """A non-negative index, so that caches hold each clip once."""
        count = len(self._clips)
        if not -count <= index < count:
            raise IndexError(f"clip index {index}; the data set holds {count} clips")
        return index % count

    def _where(self, index: int, member: str = "") -> str:
        clip = self._clips[index]
        return f"{self.folder / clip.shard}, clip {clip.key}{', member ' + member if member else ''}"

    def _read(self, shard: str, offset: int, length: int) -> bytes:
        descriptor = self._open_shards.get(shard)
        if descriptor is not None:
            return os.pread(descriptor, length, offset)
        try:
            descriptor = os.open(self.folder / shard, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{self.folder / shard}: cannot be opened ({error.strerror}).") from error
        content = os.pread(descriptor, length, offset)
        # setdefault is atomic: if another thread opened the shard meanwhile, its descriptor stays and ours
        # is closed.
        if len(self._open_shards) >= _MAX_OPEN_SHARDS or (
            self._open_shards.setdefault(shard, descriptor) != descriptor
        ):
            os.close(descriptor)
        return content

    def _scan(self, index: int) -> dict[str, tuple[int, int]]:
        clip = self._clips[index]
        read = functools.partial(self._read, clip.shard)
        return scan_members(read, clip.offset, clip.offset + clip.bytes, self._where(index))

    def _member(self, index: int, name: str) -> bytes:
        place = self._members(index).get(f"{self._clips[index].key}.{name}")
        if place is None:
            raise DataError(f"{self._where(index)}: member '{name}' is not stored in this clip.")
        content = self._read(self._clips[index].shard, *place)
        if len(content) != place[1]:
            raise DataError(f"{self._where(index, name)}: damaged tar: ends early. Copy the shard again.")
        return content

    def _image(self, index: int, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        index = self._place(index)
        image = decode_image(self._member(index, name), self._where(index, name))
        if image.shape != shape or image.dtype != dtype:
            raise DataError(
                f"{self._where(index, name)}: expected {np.dtype(dtype)} {shape}; got {image.dtype} {image.shape}."
            )
        return image

    def _find_clips_of_length(self, min_frames: int) -> np.ndarray:
        return np.flatnonzero(np.array([clip.frames for clip in self._clips]) >= min_frames)

    def _read_meta(self, index: int) -> dict[str, Any]:
        meta = decode_meta(self._member(index, "json"), self._where(index, "json"))
        check_meta(meta, self._clips[index].key)
        require_same_extractor(self.manifest.extractor, meta["extractor"], self._where(index))
        return meta

    def _read_arrays(self, index: int) -> dict[str, np.ndarray]:
        key = self._clips[index].key
        arrays: dict[str, np.ndarray] = {}
        for member in self._members(index):
            name = member.removeprefix(f"{key}.")
            if name.endswith(".npy"):
                array = decode_array(self._member(index, name), self._where(index, name))
                check_array(key, name.removesuffix(".npy"), array, self._clips[index].frames)
                array.setflags(write=False)
                arrays[name.removesuffix(".npy")] = array
        return arrays

    def _head_angles(self, index: int) -> np.ndarray:
        camera = self._cached_arrays(index).get("camera")
        if camera is None:
            raise DataError(f"{self._where(index)}: member 'camera.npy' is not stored in this clip.")
        angles = Camera.from_vector(torch.from_numpy(camera.copy())).head_angles().numpy()
        angles.setflags(write=False)
        return angles

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "manifest": self.manifest, "_clips": self._clips}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare_caches()
