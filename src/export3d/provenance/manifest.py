"""C2PA manifests: signed facts about how a file was made, written into the file, and read from any file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from PIL import Image

from export3d.errors import CertificateError
from export3d.files import temporary_beside
from export3d.provenance.certificate import Credentials

MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}
"""File suffix -> media type, where manifests are read; the files made here are the first six. Matroska has no place for one."""

FACTS_LABEL = "org.export3d.facts"
"""Name of the assertion that holds what is particular to Export3D."""

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"

_QUIET = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}  # reading a file asks nobody on the network
_PLAIN = {"builder": {"thumbnail": {"enabled": False}}}  # a picture's took 45 ms, and as much room as the picture
_BEGINNING = b"jumdc2pa"  # first bytes of every manifest store (JUMBF description box)
_UNTRUSTED = "signingCredential.untrusted"


def manifest_of(facts: dict[str, Any], *, version: str, when: str, composite: bool) -> dict[str, Any]:
    """The manifest as C2PA's builder takes it.

    Args:
        facts: JSON-ready, for the assertion `FACTS_LABEL`.
        version: of Export3D.
        when: ISO 8601, UTC.
        composite: camera pictures are shown beside generated ones.
    """
    kind = "compositeWithTrainedAlgorithmicMedia" if composite else "trainedAlgorithmicMedia"
    created = {
        "action": "c2pa.created",
        "when": when,
        "digitalSourceType": SOURCE_TYPES + kind,
        "softwareAgent": {"name": "Export3D", "version": version},
    }
    return {
        "claim_generator_info": [{"name": "Export3D", "version": version}],
        "title": "Made with Export3D",
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": FACTS_LABEL, "data": facts},
        ],
    }


def sign_file(path: Path, media_type: str, manifest: dict[str, Any], credentials: Credentials) -> None:
    """Write the signed manifest into a finished file; the file stays as it is where that fails.

    Raises:
        CertificateError: C2PA does not take the certificate, or the file cannot be written anew.
    """
    temporary = temporary_beside(path)
    try:
        with open(path, "rb") as source, open(temporary, "w+b") as target:
            _sign(source, target, media_type, manifest, credentials)
        temporary.replace(path)
    except OSError as error:
        raise CertificateError(f"the manifest could not be signed ({error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def try_signing(credentials: Credentials) -> None:
    """Sign a picture of one pixel in memory, to find before any work that C2PA does not take a certificate.

    Raises:
        CertificateError: It does not.
    """
    source = io.BytesIO()
    Image.new("RGB", (1, 1)).save(source, "PNG")
    source.seek(0)
    _sign(
        source,
        io.BytesIO(),
        "image/png",
        manifest_of({}, version="0", when="2000-01-01T00:00:00Z", composite=False),
        credentials,
    )


def _sign(
    source: BinaryIO, target: BinaryIO, media_type: str, manifest: dict[str, Any], credentials: Credentials
) -> None:
    import c2pa

    algorithm = getattr(c2pa.C2paSigningAlg, credentials.algorithm)
    try:
        info = c2pa.C2paSignerInfo(algorithm, credentials.chain, credentials.key, None)
        context = c2pa.Context.from_dict(_PLAIN)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, context=context) as builder:
            builder.sign(signer, media_type, source, target)
    except c2pa.C2paError as error:
        raise CertificateError(
            f"C2PA does not sign with this certificate ({error}). It needs an organisation, the use 'digital signature' and "
            "the extended use 'e-mail protection' or 'document signing', and must come with the certificates above it."
        ) from error


@dataclass(frozen=True, kw_only=True)
class ManifestReport:
    """What a file's manifest says.

    Attributes:
        state: `valid`, `tampered` (the file or the manifest was changed after signing), `missing`, or `unchecked` (this
            kind of file holds none, or the extra is not installed).
        reason: one sentence, for states other than `valid`.
        trusted: a certificate authority on C2PA's list vouches for the signer.
        signer: name in the certificate.
        generator: program that made the file.
        source_type: IPTC digital source type of the creation, without its address.
        when: as the signer's clock said.
        facts: Export3D's own assertion, empty for files of others.
    """

    state: str
    reason: str = ""
    trusted: bool = False
    signer: str = ""
    generator: str = ""
    source_type: str = ""
    when: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def read_manifest(path: Path) -> ManifestReport:
    """Read and check the manifest of a file of any origin; nothing is asked of the network."""
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        return ManifestReport(state="unchecked", reason=f"files of the kind '{path.suffix}' hold no manifest")
    try:
        import c2pa
    except ImportError:
        return ManifestReport(state="unchecked", reason='not installed: pip install "export3d[provenance]"')
    if path.stat().st_size == 0:
        return ManifestReport(state="missing", reason="the file is empty")
    try:
        with open(path, "rb") as file:
            reader = c2pa.Reader.try_create(media_type, file, context=c2pa.Context.from_dict(_QUIET))
            if reader is None:
                return _without_manifest(path, "its place is hidden")
            with reader:
                state, store = reader.get_validation_state(), json.loads(reader.json())
    except c2pa.C2paError as error:
        return _without_manifest(path, str(error))
    report = _report(state or "", store)
    if report.state == "valid" and media_type == "image/png" and not _png_is_whole(path.read_bytes()):
        return replace(report, state="tampered", reason="the file was changed after signing (a chunk's checksum)")
    return report


def _png_is_whole(content: bytes) -> bool:
    """Whether each chunk has its checksum: the signature leaves the manifest's padding out."""
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        at = end + 4
    return at == len(content)


def _without_manifest(path: Path, why: str) -> ManifestReport:
    """A file where no manifest can be found: damaged where its beginning is still there, missing otherwise."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        damaged = content.find(_BEGINNING) >= 0
    if damaged:
        return ManifestReport(state="tampered", reason=f"the manifest was damaged after signing ({why})")
    return ManifestReport(state="missing", reason="the file holds no manifest")


def _report(state: str, store: dict[str, Any]) -> ManifestReport:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    assertions = {one.get("label", ""): one.get("data") or {} for one in active.get("assertions", [])}
    actions = [
        a for name, data in assertions.items() if name.startswith("c2pa.actions") for a in data.get("actions", [])
    ]
    created = next((a for a in actions if a.get("action") == "c2pa.created"), {})
    generators = [
        f"{g.get('name', '?')} {g.get('version', '')}".strip() for g in active.get("claim_generator_info") or []
    ]
    signature = active.get("signature_info") or {}
    failures = [s.get("code", "?") for s in store.get("validation_status") or [] if s.get("code") != _UNTRUSTED]
    said = {
        "signer": " / ".join(signature[k] for k in ("common_name", "issuer") if signature.get(k)),
        "generator": generators[0] if generators else str(active.get("claim_generator", "")),
        "source_type": str(created.get("digitalSourceType", "")).removeprefix(SOURCE_TYPES),
        "when": str(created.get("when", "")),
        "facts": dict(assertions.get(FACTS_LABEL, {})),
    }
    if state in ("Valid", "Trusted"):
        return ManifestReport(state="valid", trusted=state == "Trusted", **said)
    reason = f"the file or its manifest was changed after signing ({', '.join(failures) or state})"
    return ManifestReport(state="tampered", reason=reason, **said)
