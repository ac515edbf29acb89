"""Records of TLS 1.3 as no library sends them, made with the secret of a handshake (RFC 8446 §5, §7)."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["ClientRecords", "client_secret"]

_HANDSHAKE, _DATA = 22, 23


class ClientRecords:
    """What a client sends after its handshake; the cipher suite is TLS_AES_256_GCM_SHA384.

    Args:
        secret: the client's application traffic secret.
    """

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def data(self, data: bytes) -> bytes:
        """Return a record of data."""
        return self._record(_DATA, data)

    def key_update(self, *, requested: bool = False) -> bytes:
        """Return a record that only changes the key; `requested` asks the server for one as well."""
        record = self._record(_HANDSHAKE, bytes([24, 0, 0, 1, requested]))
        self._use(_expand(self._secret, b"traffic upd", 48))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expand(secret, b"key", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12))
        self._sequence = 0

    def _record(self, kind: int, content: bytes) -> bytes:
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        nonce = (self._iv ^ self._sequence).to_bytes(12)
        self._sequence += 1
        return header + self._cipher.encrypt(nonce, content + bytes([kind]), header)


def client_secret(log: str) -> bytes:
    """Return the secret from what `ssl.SSLContext.keylog_filename` has written."""
    (line,) = (line for line in log.splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0 "))
    return bytes.fromhex(line.split()[2])


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    info = size.to_bytes(2) + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)
