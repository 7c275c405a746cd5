"""What the tracker reads faces by: arrays in a file of their own, among them linear maps (no paper section)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from export3d import __version__
from export3d.errors import CheckpointError
from export3d.reading import reading
from export3d.tensor_files import read_tensor_file, write_sealed

Map = TypeVar("Map", bound="StoredMap")
"""Which map a file is read as."""

ASSETS = Path(__file__).resolve().parent.parent / "assets"


@dataclass(frozen=True, kw_only=True)
class StoredMap:
    """Arrays, and the file that holds them."""

    NAME: ClassVar[str]
    """Of the bundled file and in its format."""
    COMMAND: ClassVar[str]
    """That makes the file."""
    VERSION: ClassVar[str]
    SHAPES: ClassVar[dict[str, tuple[int, ...]]]
    """Of each array, which is float32."""

    def __post_init__(self) -> None:
        for name, shape in self.SHAPES.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{self.NAME} map: {name} must be finite float32 of shape {shape}; got {array.shape}")

    def save(self, path: str | Path) -> str:
        """Write a safetensors file under a temporary name, rename it, and return its SHA-256."""
        metadata = {"format": self._format(), "version": self.VERSION, "created_by": f"export3d {__version__}"}
        return write_sealed(path, metadata, {name: getattr(self, name) for name in self.SHAPES})

    @classmethod
    def load(cls: type[Map], path: str | Path | None = None) -> Map:
        """Read a file of :meth:`save`; None is the bundled one.

        Raises:
            CheckpointError: Missing, damaged, another format or version, or arrays of wrong names or shapes.
        """
        return cls._bundled() if path is None else cls._read(Path(path))

    @classmethod
    @cache
    def _bundled(cls: type[Map]) -> Map:
        return cls._read(ASSETS / f"{cls.NAME.replace('-', '_')}.safetensors")

    @classmethod
    def _read(cls: type[Map], path: Path) -> Map:
        _, arrays = read_tensor_file(
            path,
            kind=cls.NAME,
            format_name=cls._format(),
            version=cls.VERSION,
            error=CheckpointError,
            remedy=f"Install export3d again, or run: export3d {cls.COMMAND}",
        )
        with reading(path, f"not the arrays of a {cls.NAME} map", CheckpointError, "Make it again."):
            return cls(**arrays)

    @classmethod
    def _format(cls) -> str:
        return f"export3d-{cls.NAME}"


@dataclass(frozen=True, kw_only=True)
class LinearMap(StoredMap):
    """P features to Q numbers."""

    weight: np.ndarray
    """``(P, Q)`` float32."""
    bias: np.ndarray
    """``(Q,)`` float32."""
