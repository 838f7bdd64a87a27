"""Content credentials checked without c2pa-python: the standard's own steps, by hashlib and cryptography alone; and by
another reader, encypher-c2pa, whose code is not c2pa-rs's, where it is installed."""

import hashlib
import struct

import pytest

pytest.importorskip("cryptography", reason="pip install 'enhance-a-video[credentials]'")
pytest.importorskip("c2pa", reason="pip install 'enhance-a-video[credentials]'")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enhance_a_video.generation import video
from enhance_a_video.generation.credentials import Claim
from tests import media_files

C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # the uuid of the box that holds a manifest store


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    record = {"prompt": "a cat of mine", "seed": 5, "model": "embedded", "settings": {"odds": 2.0}, "options": {}}
    path = tmp_path_factory.mktemp("signed") / "clip.mp4"
    return video.write_video(path, media_files.moving(), 12, claim=Claim(record)).read_bytes()


# ---------------------------------------------------------------------------------------------- boxes and CBOR, read


def boxes(data, at=0, end=None):
    """(type, start, start of the content, end) of the ISO boxes in a range."""
    end = len(data) if end is None else end
    while at < end:
        size, kind = struct.unpack_from(">I4s", data, at)
        inner = at + 8
        if size == 1:
            size, inner = struct.unpack_from(">Q", data, inner)[0], inner + 8
        last = at + size if size else end
        yield kind, at, inner, last
        at = last


def manifest_store(data):
    """The JUMBF bytes of an mp4."""
    for kind, _, inner, last in boxes(data):
        if kind == b"uuid" and data[inner : inner + 16] == C2PA:
            purpose = data.index(b"\0", inner + 20)  # after version and flags
            return data[purpose + 1 + 8 : last]  # after the offset of the Merkle tree
    raise AssertionError("no manifest store")


def superboxes(data, path=""):
    """path -> (content of the superbox, its content boxes by type) of JUMBF, labels joined by "/"."""
    found = {}
    for kind, _, inner, last in boxes(data):
        if kind != b"jumb":
            continue
        parts = list(boxes(data, inner, last))
        described = data[parts[0][2] : parts[0][3]]
        label = described[17 : described.index(b"\0", 17)].decode()
        content = {k: data[i:e] for k, _, i, e in parts[1:] if k != b"jumb"}
        found[f"{path}{label}"] = data[inner:last], content
        rest = data[parts[0][3] : last]
        found |= superboxes(rest, f"{path}{label}/")
    return found


def cbor(data, at=0):
    """(value, end) of a CBOR item; tags are passed over, as what they hold is all that is needed here."""
    major, extra = data[at] >> 5, data[at] & 31
    at += 1
    if extra >= 24 and extra < 28:
        width = 1 << (extra - 24)
        extra, at = int.from_bytes(data[at : at + width], "big"), at + width
    if major in (0, 1):
        return (extra if major == 0 else -1 - extra), at
    if major in (2, 3):
        piece = bytes(data[at : at + extra])
        return (piece if major == 2 else piece.decode()), at + extra
    if major in (4, 5):
        items = []
        for _ in range(extra * (major - 3)):
            item, at = cbor(data, at)
            items.append(item)
        return (items if major == 4 else dict(zip(items[::2], items[1::2], strict=True))), at
    if major == 6:
        return cbor(data, at)
    return {20: False, 21: True}.get(extra), at


def encoded(data):
    """A CBOR byte string."""
    size = len(data)
    head = (
        bytes([0x40 | size])
        if size < 24
        else b"\x58" + bytes([size])
        if size < 256
        else b"\x59" + size.to_bytes(2, "big")
    )
    return (head if size < 65536 else b"\x5a" + size.to_bytes(4, "big")) + data


# -------------------------------------------------------------------------------------------------- the three checks


def signature_holds(parts):
    """COSE_Sign1 over the claim, by the first certificate of its chain (ES256)."""
    claim = next(content[b"cbor"] for path, (_, content) in parts.items() if path.endswith("/c2pa.claim.v2"))
    cose = next(content[b"cbor"] for path, (_, content) in parts.items() if path.endswith("/c2pa.signature"))
    (protected, _, payload, signature), _ = cbor(cose)
    header, _ = cbor(protected)
    assert header[1] == -7 and payload is None, "ES256, detached"
    signer = x509.load_der_x509_certificate(header[33][0])
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    message = b"\x84" + b"\x6aSignature1" + encoded(protected) + b"\x40" + encoded(claim)
    signer.public_key().verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))  # or raises
    issuer = x509.load_der_x509_certificate(header[33][1])
    signer.verify_directly_issued_by(issuer)
    return cbor(claim)[0]


def assertions_hold(parts, claim):
    """Each assertion has the hash that the claim has for it; returns their labels."""
    labels = []
    for one in claim["created_assertions"] + claim.get("gathered_assertions", []):
        label = one["url"].rsplit("/", 1)[-1]
        box = next(whole for path, (whole, _) in parts.items() if path.endswith(f"c2pa.assertions/{label}"))
        assert hashlib.sha256(box).digest() == one["hash"], label
        labels.append(label)
    return labels


def file_holds(data, parts):
    """The hard binding: SHA-256 over every box of the file that is not excluded, each after its offset in the file."""
    bound = next(c[b"cbor"] for path, (_, c) in parts.items() if "/c2pa.hash.bmff" in path)
    bound, _ = cbor(bound)
    left_out = {one["xpath"]: one.get("data") for one in bound["exclusions"]}
    found = hashlib.sha256()
    for kind, start, _, last in boxes(data):
        values = left_out.get(f"/{kind.decode()}", ...)
        pinned = values in (None, ...) or all(
            data[start + one["offset"] : start + one["offset"] + len(one["value"])] == one["value"] for one in values
        )
        if values is ... or not pinned:
            found.update(start.to_bytes(8, "big") + data[start:last])
    return found.digest() == bound["hash"]


def test_the_standards_own_steps_accept_a_clip(signed):
    parts = superboxes(manifest_store(signed))
    claim = signature_holds(parts)
    labels = assertions_hold(parts, claim)
    assert {"c2pa.actions.v2", "org.enhance-a-video.settings"} <= set(labels)
    assert any(label.startswith("c2pa.hash.bmff") for label in labels) and file_holds(signed, parts)


def test_a_flipped_byte_of_the_pictures_or_of_the_claim_is_found(signed):
    parts = superboxes(manifest_store(signed))
    for at in (signed.index(b"mdat") + 100, signed.index(b"moov") + 100):
        changed = bytearray(signed)
        changed[at] ^= 1
        assert not file_holds(bytes(changed), superboxes(manifest_store(bytes(changed))))
    settings = next(path for path in parts if path.endswith("org.enhance-a-video.settings"))
    whole, content = parts[settings]
    forged = parts | {settings: (whole.replace(b"embedded", b"embeddex"), content)}
    with pytest.raises(AssertionError):
        assertions_hold(forged, signature_holds(parts))


def test_another_reader_accepts_a_clip_and_refuses_a_changed_one(signed, monkeypatch):
    monkeypatch.setenv("ENCYPHER_C2PA_TELEMETRY", "off")
    other = pytest.importorskip("encypher_c2pa", reason="pip install encypher-c2pa")
    found = other.verify(signed, "video/mp4")
    assert (found["integrity"], found["signature"], found["hard_binding"]) == ("valid", "valid", "match")
    assert [one["code"] for one in found["validation_results"]["failure"]] == ["signingCredential.untrusted"]
    changed = bytearray(signed)
    changed[signed.index(b"mdat") + 100] ^= 1
    assert other.verify(bytes(changed), "video/mp4")["hard_binding"] != "match"
