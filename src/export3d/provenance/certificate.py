"""Certificates that sign manifests: the user's own, or a local chain that is made at first use.

A local chain proves that two videos were signed on the same account, and that neither was changed; it says nothing about
who that is, since nobody vouches for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from export3d.errors import CertificateError, MissingExtraError
from export3d.provenance.folder import config_folder, write_private

LOCAL_FILE = "signing.pem"
"""Key, certificate and the certificate above it, in one file of the configuration folder."""

_ORGANISATION = "Export3D, made on this computer"
_VALID_DAYS = 3650


@dataclass(frozen=True)
class Credentials:
    """What signs.

    Attributes:
        chain: PEM, the signing certificate first.
        key: PEM (PKCS 8), not encrypted.
        algorithm: as C2PA names it, such as ES256.
    """

    chain: bytes
    key: bytes
    algorithm: str


def load_credentials(certificate: Path | None = None, key: Path | None = None) -> Credentials:
    """The given certificate and key, or the local ones, which are made if there are none.

    Raises:
        MissingExtraError: The extra `provenance` is not installed.
        CertificateError: Not PEM, an encrypted key, a key of another certificate, an expired certificate, a kind of key
            that C2PA does not know, or a configuration folder that cannot be read or written.
    """
    _require()
    if certificate is not None and key is not None:
        return _checked(_read(certificate, "--certificate"), _read(key, "--key"), certificate, key)
    path = config_folder() / LOCAL_FILE
    try:
        content = path.read_bytes() if path.exists() else _make_local(path)
    except OSError as error:
        raise CertificateError(
            f"{path}: the local signing certificate cannot be read or made ({error.strerror or error}). Make the folder "
            "writable, name another one with EXPORT3D_CONFIG, or give --certificate and --key."
        ) from error
    return _checked(content, content, path, path)


def _require() -> None:
    try:
        import c2pa  # noqa: F401
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"manifests need the package '{error.name}', which is not installed. Run: pip install \"export3d[provenance]\""
        ) from error


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{option} {path}: cannot be read ({error.strerror or error}).") from error


def _checked(chain: bytes, key: bytes, chain_path: Path, key_path: Path) -> Credentials:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise CertificateError(
            f"{chain_path}: not a certificate in PEM form ({error}). Expected '-----BEGIN CERTIFICATE-----', the signing "
            "certificate first, then those above it."
        ) from error
    try:
        private: Any = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(
            f"{key_path}: not a private key in PEM form without a password ({error}). Take the password off, "
            "for example with: openssl pkcs8 -topk8 -nocrypt"
        ) from error
    leaf = certificates[0]
    if leaf.public_key() != private.public_key():
        raise CertificateError(
            f"{key_path}: this key does not belong to the certificate {chain_path}. Give its own key."
        )
    if not leaf.not_valid_before_utc <= datetime.now(timezone.utc) <= leaf.not_valid_after_utc:
        raise CertificateError(
            f"{chain_path}: the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, not today. Renew it (a local one is made anew when you delete it)."
        )
    return Credentials(
        chain=b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates),
        key=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        algorithm=_algorithm(private, key_path),
    )


def _algorithm(key: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size in (256, 384, 521):
        return {256: "ES256", 384: "ES384", 521: "ES512"}[key.key_size]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ED25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "PS256"
    raise CertificateError(
        f"{path}: C2PA cannot sign with this kind of key. Use an elliptic curve key (P-256, P-384, P-521), Ed25519, or "
        "RSA of at least 2048 bits."
    )


def _make_local(path: Path) -> bytes:
    """Make a chain of two certificates; the upper one's key is thrown away, so that it can sign nothing else."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    upper, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    top = _certificate("Export3D local authority", "Export3D local authority", upper, upper, authority=True)
    leaf = _certificate("Export3D local signer", "Export3D local authority", own, upper, authority=False)
    pem = serialization.Encoding.PEM
    key = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    content = key + leaf.public_bytes(pem) + top.public_bytes(pem)
    write_private(path, content)
    return content


def _certificate(subject: str, issuer: str, key: Any, signing_key: Any, *, authority: bool) -> Any:
    """One certificate; the leaf has what C2PA asks for: an organisation, digital signature, e-mail protection."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        names = (NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, _ORGANISATION)
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in names])

    flags = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    uses = dict.fromkeys((*flags, "decipher_only"), False)
    uses |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(x509.KeyUsage(**uses), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=True)
    return builder.sign(signing_key, hashes.SHA256())
