"""Finishing: the few lines that every video and picture passes, frame -> label -> mark, file -> signed manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from export3d import __version__
from export3d.errors import CertificateError, MissingExtraError
from export3d.files import file_sha256
from export3d.provenance.certificate import Credentials, load_credentials
from export3d.provenance.label import Label
from export3d.provenance.manifest import MEDIA_TYPES, manifest_of, sign_file, try_signing
from export3d.provenance.mark import Marker, new_payload
from export3d.provenance.options import ProvenanceOptions


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an output was made from. Files are recorded by their hash alone.

    Attributes:
        source, drivers, model: files.
        consent: the sentence.
        composite: camera pictures are shown beside generated ones.
    """

    source: Path | None = None
    drivers: tuple[Path, ...] = ()
    model: Path | None = None
    consent: str = ""
    composite: bool = False


class Finish:
    """Label, mark and manifest of one run; everything it writes has the same number.

    Nothing here can cost a video: where the manifest cannot be signed, the file is kept without one and `warnings` says why.

    Raises:
        UsageError: A label that cannot be drawn.
        CertificateError, MissingExtraError: The given certificate cannot be used; found before any work starts.
    """

    def __init__(self, options: ProvenanceOptions | None = None, facts: Facts | None = None) -> None:
        self.options = options or ProvenanceOptions()
        self.facts = facts or Facts()
        self.payload = new_payload()
        self.warnings: list[str] = []
        text = None if self.options.no_label else self.options.label
        self._label = None if text is None else Label(text)
        self._marker = None if self.options.no_mark else Marker(self.payload)
        self._credentials: Credentials | None = None
        if not self.options.no_manifest:
            self._credentials = self._find_credentials()

    def frame(self, image: np.ndarray, *, still: bool = False) -> np.ndarray:
        """The uint8 ``(H, W, 3)`` image, one of many or alone (`still`), with label and mark. For one thread at a time."""
        if self._label is not None:
            image = self._label(image)
        if self._marker is None:
            return image
        return self._marker.still(image) if still else self._marker(image)

    def signer(self, path: Path) -> Callable[[Path], None]:
        """What signs the complete file that will be called `path`, for `VideoWriter`."""
        return partial(self.file, suffix=path.suffix)

    def file(self, finished: Path, suffix: str) -> None:
        """Sign a complete file in place, before it gets its name, which will end in `suffix`."""
        if self._credentials is None:
            return
        media_type = MEDIA_TYPES.get(suffix.lower())
        if media_type is None:
            self._warn(f"files of the kind '{suffix}' can hold no signed manifest; use .mp4 or .mov. The mark is in it")
            return
        when = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        manifest = manifest_of(self._record, version=__version__, when=when, composite=self.facts.composite)
        try:
            sign_file(finished, media_type, manifest, self._credentials)
        except CertificateError as error:
            self._warn(f"the file was written without a signed manifest: {error}")

    def _find_credentials(self) -> Credentials | None:
        own = self.options.certificate is not None
        try:
            credentials = load_credentials(self.options.certificate, self.options.key)
            if own:
                try_signing(credentials)
            return credentials
        except (CertificateError, MissingExtraError) as error:
            if own:
                raise
            self._warn(f"no signed manifest: {error}")
            return None

    @cached_property
    def _record(self) -> dict[str, Any]:
        """The facts as they are signed."""
        files = {"source": self.facts.source, "model": self.facts.model}
        files |= {f"driver{number or ''}": path for number, path in enumerate(self.facts.drivers)}
        record: dict[str, Any] = {
            f"{name}_sha256": file_sha256(path) for name, path in files.items() if path is not None and path.is_file()
        }
        if self._marker is not None:
            record["invisible_mark"] = f"{self.payload:08x}"
        if self.facts.consent:
            record["consent"] = self.facts.consent
        return record

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
