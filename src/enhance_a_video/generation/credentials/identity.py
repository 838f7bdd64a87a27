"""The certificate that signs content credentials: the user's own, or one that this computer makes for itself.

A certificate made here has "self-made" in its name. Nobody vouches for it: it shows that a file has not been changed
since, not who made it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import EnhanceAVideoError, OutputExistsError, SettingsError, VideoFileError
from ..files import atomic

CERTIFICATE, KEY = "ENHANCE_A_VIDEO_CERTIFICATE", "ENHANCE_A_VIDEO_PRIVATE_KEY"
HOME = "ENHANCE_A_VIDEO_HOME"
SELF_MADE = "Enhance-A-Video self-made certificate, not trusted"
_YEARS = 10


@dataclass(frozen=True)
class Identity:
    """A certificate chain and its private key, as PEM. algorithm: C2PA's name of it. self_made: by this computer."""

    chain: bytes
    key: bytes
    algorithm: str
    self_made: bool


def identity() -> Identity:
    """The user's certificate where the two variables of the environment name one, else the self-made one of this user.

    Raises:
        SettingsError: one of the variables without the other; files that cannot be read or do not belong together.
    """
    chain, key = os.environ.get(CERTIFICATE, ""), os.environ.get(KEY, "")
    if bool(chain) != bool(key):
        raise SettingsError(f"{CERTIFICATE} and {KEY} go together: set both to PEM files, or neither.")
    return _own(chain, key) if chain else _self_made(_folder())


@lru_cache(maxsize=4)
def _own(chain: str, key: str) -> Identity:
    from cryptography import x509

    try:
        certificates, secret = Path(chain).expanduser().read_bytes(), Path(key).expanduser().read_bytes()
        first, private = x509.load_pem_x509_certificates(certificates)[0], _loaded(secret)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{CERTIFICATE}={chain} and {KEY}={key} cannot be used ({error}): a chain of certificates, the signer's "
            "first, and its private key without a password, both as PEM."
        ) from error
    if first.public_key() != private.public_key():
        raise SettingsError(f"The private key of {KEY} does not belong to the first certificate of {CERTIFICATE}.")
    return Identity(certificates, secret, _algorithm(private), False)


def _loaded(key: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(key, None)


def _algorithm(key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise SettingsError(f"The private key of {KEY} is of a kind that content credentials do not take: use EC P-256.")


_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


# ------------------------------------------------------------------------------------------------ the self-made one


def _folder() -> Path:
    """Where this user's settings belong on this system."""
    if home := os.environ.get(HOME):
        return Path(home)
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return Path(base or Path.home() / ".config") / "enhance-a-video"


@lru_cache(maxsize=4)
def _self_made(folder: Path) -> Identity:
    """The one in the folder, made there on first use; where nothing can be written, one for this process alone."""
    file = folder / "self-made-certificate.pem"
    try:
        if not file.exists():
            with atomic(file) as draft:  # whole or not at all: several processes may come here at once
                draft.write_bytes(_new())
                os.chmod(draft, 0o600)
        pem = file.read_bytes()
        os.chmod(file, 0o600)  # it holds the private key
    except OutputExistsError:
        pem = file.read_bytes()
    except (VideoFileError, OSError):
        pem = _new()
    try:
        return _divided(pem)
    except ValueError as error:
        raise EnhanceAVideoError(f"{file} is damaged: delete it, and another one is made.") from error


def _divided(pem: bytes) -> Identity:
    at = pem.index(b"-----BEGIN CERTIFICATE")
    return Identity(pem[at:], pem[:at], _algorithm(_loaded(pem[:at])), True)


def _new() -> bytes:
    """A private key and its chain, as PEM: a certificate, and the one that issued it, whose own key is thrown away."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = [_certificate(SELF_MADE, own, root, False), _certificate(f"{SELF_MADE} (issuer)", root, root, True)]
    key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + b"".join(one.public_bytes(Encoding.PEM) for one in chain)


def _certificate(name: str, own: Any, issuer: Any, issues: bool) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        return x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, text), x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_MADE)]
        )

    now, public = datetime.now(timezone.utc), own.public_key()
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    build = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(f"{SELF_MADE} (issuer)"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=issues, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not issues, key_cert_sign=issues, crl_sign=issues, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    )
    if not issues:  # what C2PA accepts of a signer
        build = build.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return build.sign(issuer, hashes.SHA256())
