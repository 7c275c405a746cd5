"""A linear map from what MediaPipe finds to something of the face, in a file of its own (no paper section)."""

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

Map = TypeVar("Map", bound="LinearMap")
"""Which map a file is read as."""

ASSETS = Path(__file__).resolve().parent.parent / "assets"


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """P features to Q numbers."""

    NAME: ClassVar[str]
    """Of the bundled file and in its format; `export3d train-NAME` makes it."""
    VERSION: ClassVar[str]
    SHAPE: ClassVar[tuple[int, int]]
    """P and Q."""

    weight: np.ndarray
    """``(P, Q)`` float32."""
    bias: np.ndarray
    """``(Q,)`` float32."""

    def __post_init__(self) -> None:
        for name, shape in (("weight", self.SHAPE), ("bias", self.SHAPE[1:])):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{self.NAME} map: {name} must be finite float32 of shape {shape}; got {array.shape}")

    def save(self, path: str | Path) -> str:
        """Write a safetensors file under a temporary name, rename it, and return its SHA-256."""
        metadata = {"format": self._format(), "version": self.VERSION, "created_by": f"export3d {__version__}"}
        return write_sealed(path, metadata, {"weight": self.weight, "bias": self.bias})

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
        return cls._read(ASSETS / f"{cls.NAME}.safetensors")

    @classmethod
    def _read(cls: type[Map], path: Path) -> Map:
        _, arrays = read_tensor_file(
            path,
            kind=cls.NAME,
            format_name=cls._format(),
            version=cls.VERSION,
            error=CheckpointError,
            remedy=f"Install export3d again, or run: export3d train-{cls.NAME}",
        )
        with reading(path, f"not the arrays of a {cls.NAME} map", CheckpointError, "Make it again."):
            return cls(**arrays)

    @classmethod
    def _format(cls) -> str:
        return f"export3d-{cls.NAME}"
