"""A throw-away certificate for the TLS workload."""

from __future__ import annotations

import ssl
from pathlib import Path

__all__ = ["make_certificate"]


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext | None]:
    """Write one PEM with key and chain for 127.0.0.1; return it and the client's context.

    Without trustme the context is None, and the TLS rows cannot be run.
    """
    path = folder / "certificate.pem"
    try:
        import trustme
    except ImportError:
        return path, None
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    authority.configure_trust(context)
    return path, context
