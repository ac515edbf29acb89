"""The TLS context of commands that serve."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from wsframework.errors import ConfigurationError

__all__ = ["server_context"]


def server_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the context for `--ssl-cert` and `--ssl-key`, or None without them.

    Raises:
        ConfigurationError: a file is missing, or is not what it should be.
    """
    if cert is None:
        if key is not None:
            raise ConfigurationError("--ssl-key needs --ssl-cert, the certificate of the key")
        return None
    for option, file in (("--ssl-cert", cert), ("--ssl-key", key)):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"{option} {file}: there is no such file")

    def ask_for_password() -> NoReturn:
        # A program could not restart a server that waits for a password.
        raise ConfigurationError(f"{key or cert}: the private key is encrypted; decrypt it (openssl pkey)")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = cert if key is None else f"{cert} and {key}"
    try:
        context.load_cert_chain(cert, key, ask_for_password)
    except ssl.SSLError as error:
        # For most errors in a file OpenSSL gives no reason.
        why = (error.reason or "").replace("_", " ").lower()
        why = why or "not PEM, or no certificate or private key in it"
        raise ConfigurationError(f"cannot serve TLS with {files}: {why}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot serve TLS with {files}: {error}") from None
    return context
