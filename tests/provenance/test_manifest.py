"""Signed manifests: what is signed can be read, what is changed is noticed, what is broken costs no video."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from export3d.errors import CertificateError, UsageError
from export3d.provenance import Facts, Finish, ProvenanceOptions, verify_file
from export3d.provenance.certificate import LOCAL_FILE, load_credentials
from export3d.provenance.manifest import SOURCE_TYPES, read_manifest
from export3d.provenance.verify import MARK_ONLY, NOTHING, TAMPERED, in_words
from export3d.video import VideoReader
from pictures import a_picture, a_video, encode

c2pa = pytest.importorskip("c2pa")
pytest.importorskip("cryptography")


def signed_video(folder: Path, finish: Finish | None = None, suffix: str = ".mp4") -> Path:
    finish = finish or Finish()
    path = encode(folder / f"video{suffix}", [finish.frame(frame) for frame in a_video(num_frames=4)])
    finish.file(path, suffix)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_video_says_how_it_was_made(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"abc")
    finish = Finish(ProvenanceOptions(), Facts(source=source, consent="Ann agreed."))
    report = verify_file(signed_video(tmp_path, finish, suffix))
    said = report.manifest
    assert (said.state, said.trusted, report.exit_code) == ("valid", False, 0)
    assert said.generator.startswith("Export3D ") and said.source_type == "trainedAlgorithmicMedia"
    assert said.facts["source_sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert said.facts["consent"] == "Ann agreed."
    assert said.facts["invisible_mark"] == f"{finish.payload:08x}" == f"{report.mark.payload:08x}"  # type: ignore[union-attr]
    assert abs(datetime.fromisoformat(said.when.replace("Z", "+00:00")) - datetime.now(timezone.utc)) < timedelta(
        minutes=5
    )


def test_the_signed_video_plays_as_before(tmp_path: Path) -> None:
    finish = Finish()
    path = encode(tmp_path / "video.mp4", a_video(num_frames=4))
    with VideoReader(path) as reader:
        before = [frame.image.copy() for frame in reader]
    size = path.stat().st_size
    finish.file(path, ".mp4")
    with VideoReader(path) as reader:
        assert all((a.image == b).all() for a, b in zip(reader, before, strict=True))
    assert path.stat().st_size > size and list(tmp_path.glob(".video*")) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_says_how_it_was_made(tmp_path: Path, suffix: str) -> None:
    finish, path = Finish(facts=Facts(composite=True)), tmp_path / f"still{suffix}"
    Image.fromarray(finish.frame(a_picture())).save(path, quality=95)
    finish.file(path, suffix)
    report = verify_file(path)
    assert report.exit_code == 0 and report.manifest.source_type == "compositeWithTrainedAlgorithmicMedia"
    assert b"c2pa.claim" in path.read_bytes() and b"c2pa.thumbnail" not in path.read_bytes()  # no second picture in it


def test_one_flipped_bit_in_pictures_or_facts_is_reported_as_tampered(tmp_path: Path) -> None:
    """Anywhere after the manifest's box, and in what the manifest says; its padding holds nothing and is not signed."""
    content = signed_video(tmp_path).read_bytes()
    start = content.index(b"uuid") - 4
    end = start + int.from_bytes(content[start : start + 4], "big")
    generator, flipped = random.Random(0), tmp_path / "flipped.mp4"
    places = [generator.randrange(end, len(content)) for _ in range(40)]
    places += [content.index(word) for word in (b"invisible_mark", b"trainedAlgorithmicMedia", b"c2pa.created")]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        flipped.write_bytes(changed)
        assert read_manifest(flipped).state == "tampered"
    assert end < 0.5 * len(content) and read_manifest(tmp_path / "video.mp4").state == "valid"


def test_a_tampered_file_has_the_highest_exit_code_and_says_so(tmp_path: Path) -> None:
    path = signed_video(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) - 300] ^= 1
    path.write_bytes(content)
    report = verify_file(path)
    assert report.exit_code == TAMPERED and "TAMPERED: the file or its manifest was changed" in in_words(report)


def test_encoding_again_loses_the_manifest_and_keeps_the_mark(tmp_path: Path) -> None:
    finish = Finish()
    with VideoReader(signed_video(tmp_path, finish)) as reader:
        again = encode(tmp_path / "again.mp4", [frame.image for frame in reader], crf=23)
    report = verify_file(again)
    assert report.manifest.state == "missing" and report.exit_code == MARK_ONLY
    assert report.mark is not None and report.mark.payload == finish.payload
    assert "invisible mark: found" in in_words(report)


@pytest.mark.slow
def test_a_video_from_elsewhere_has_neither(tmp_path: Path) -> None:
    report = verify_file(encode(tmp_path / "other.mp4", a_video(num_frames=3)))
    assert report.exit_code == NOTHING and report.complete and json.loads(json.dumps(report.as_json()))["mark"] is None


def test_a_manifest_of_another_program_is_read(tmp_path: Path) -> None:
    path, credentials = tmp_path / "other.png", load_credentials()
    Image.fromarray(a_picture()).save(path)
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, credentials.chain, credentials.key, None)
    manifest = {
        "claim_generator_info": [{"name": "Otherware"}],
        "assertions": [{"label": "com.other", "data": {"x": 1}}],
    }
    taken = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPES + "digitalCapture"}
    manifest["assertions"].append({"label": "c2pa.actions", "data": {"actions": [taken]}})
    with open(path, "rb") as source, open(tmp_path / "signed.png", "w+b") as target:
        c2pa.Builder(manifest).sign(c2pa.Signer.from_info(info), "image/png", source, target)
    said = read_manifest(tmp_path / "signed.png")
    assert said.generator == "Otherware" and said.facts == {} and said.source_type == "digitalCapture"


def test_matroska_keeps_the_mark_and_a_warning_says_why_there_is_no_manifest(tmp_path: Path) -> None:
    finish = Finish()
    report = verify_file(signed_video(tmp_path, finish, ".mkv"))
    assert report.exit_code == MARK_ONLY and report.manifest.state == "unchecked"
    assert "'.mkv' can hold no signed manifest" in finish.warnings[0]


# The local certificate.


def test_the_local_certificate_is_made_once_and_only_the_user_can_read_it(config_folder: Path) -> None:
    first, path = load_credentials(), config_folder / LOCAL_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and b"PRIVATE KEY" in path.read_bytes()
    assert load_credentials() == first and first.chain.count(b"BEGIN CERTIFICATE") == 2


def test_the_configuration_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from export3d.provenance import folder

    monkeypatch.delenv("EXPORT3D_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(folder.sys, "platform", "linux")
    assert folder.config_folder() == tmp_path / "export3d"


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_broken_local_certificate_costs_no_video(tmp_path: Path, config_folder: Path, content: bytes) -> None:
    config_folder.mkdir()
    (config_folder / LOCAL_FILE).write_bytes(content)
    finish = Finish()
    report = verify_file(signed_video(tmp_path, finish))
    assert report.exit_code == MARK_ONLY
    assert len(finish.warnings) == 1 and "no signed manifest" in finish.warnings[0] and LOCAL_FILE in finish.warnings[0]


def test_a_configuration_folder_that_cannot_be_written_costs_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    monkeypatch.setenv("EXPORT3D_CONFIG", str(blocked / "config"))
    finish = Finish()
    assert verify_file(signed_video(tmp_path, finish)).exit_code == MARK_ONLY
    assert "cannot be read or made" in finish.warnings[0] and "EXPORT3D_CONFIG" in finish.warnings[0]


def test_a_failure_while_signing_keeps_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Finish()
    monkeypatch.setattr(c2pa.Builder, "sign", _fail)
    path = signed_video(tmp_path, finish)
    assert verify_file(path).exit_code == MARK_ONLY and list(tmp_path.glob(".video*")) == []
    assert "written without a signed manifest" in finish.warnings[0] and "no space" in finish.warnings[0]


def _fail(*_: object) -> None:
    raise OSError("no space left")


def test_without_the_extra_a_video_is_made_with_the_mark_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "c2pa", None)
    finish = Finish()
    report = verify_file(signed_video(tmp_path, finish))
    assert 'pip install "export3d[provenance]"' in finish.warnings[0]
    assert report.mark is not None and report.manifest.state == "unchecked"


# Certificates of one's own.


def own_files(folder: Path) -> tuple[Path, Path]:
    """A good certificate and its key in two files."""
    credentials = load_credentials()
    certificate, key = folder / "own.pem", folder / "own.key"
    certificate.write_bytes(credentials.chain)
    key.write_bytes(credentials.key)
    return certificate, key


def test_ones_own_certificate_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = own_files(tmp_path)
    monkeypatch.setenv("EXPORT3D_CONFIG", os.devnull)  # the local one must not be asked for
    finish = Finish(ProvenanceOptions(certificate=certificate, key=key))
    assert verify_file(signed_video(tmp_path, finish)).exit_code == 0 and finish.warnings == []


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(UsageError, match="--certificate and --key belong together"):
        ProvenanceOptions(certificate=Path("own.pem"))


def test_broken_certificates_and_keys_are_refused_before_any_work(tmp_path: Path) -> None:
    certificate, key = own_files(tmp_path)
    words, other, locked = tmp_path / "words.txt", tmp_path / "other.key", tmp_path / "locked.key"
    words.write_text("hello")
    other.write_bytes(_new_key())
    locked.write_bytes(_new_key(password=b"secret"))
    cases = [
        (words, key, "words.txt: not a certificate in PEM form"),
        (certificate, words, "words.txt: not a private key in PEM form"),
        (certificate, other, "other.key: this key does not belong to the certificate"),
        (certificate, locked, "locked.key: not a private key in PEM form without a password"),
        (tmp_path / "gone.pem", key, "--certificate .*gone.pem: cannot be read"),
        (certificate, tmp_path / "gone.key", "--key .*gone.key: cannot be read"),
    ]
    for given, given_key, message in cases:
        with pytest.raises(CertificateError, match=message) as caught:
            Finish(ProvenanceOptions(certificate=given, key=given_key))
        assert caught.value.exit_code == 50


def _new_key(password: bytes | None = None) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    hide = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hide)


def test_an_expired_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export3d.provenance import certificate as module

    monkeypatch.setattr(module, "_VALID_DAYS", -0.5)
    with pytest.raises(CertificateError, match=r"the certificate is valid from .* not today"):
        load_credentials()


def test_a_certificate_that_c2pa_does_not_take_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without an extended use: a web server's, say."""
    from cryptography import x509

    from export3d.provenance import certificate as module

    monkeypatch.setattr(x509.CertificateBuilder, "add_extension", _without_extended_use(x509.CertificateBuilder))
    certificate, key = own_files(tmp_path)
    with pytest.raises(CertificateError, match="C2PA does not sign with this certificate"):
        Finish(ProvenanceOptions(certificate=certificate, key=key))
    assert module.load_credentials(certificate, key).algorithm == "ES256"  # nothing else is wrong with it


def _without_extended_use(builder: Any) -> Any:
    add = builder.add_extension

    def chosen(self: Any, extension: Any, critical: bool) -> Any:
        return self if type(extension).__name__ == "ExtendedKeyUsage" else add(self, extension, critical)

    return chosen


def test_every_driver_is_in_the_manifest(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for path in files:
        path.write_text(path.name)
    finish = Finish(facts=Facts(drivers=(*files, tmp_path / "vmc:39539")))  # a live sender is no file
    said = verify_file(signed_video(tmp_path, finish, ".mp4")).manifest.facts
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b")]
    assert (said["driver_sha256"], said["driver1_sha256"]) == tuple(hashes) and "driver2_sha256" not in said
