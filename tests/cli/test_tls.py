from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from wsframework.cli.tls import server_context
from wsframework.errors import ConfigurationError


def test_without_files_there_is_no_tls() -> None:
    assert server_context(None, None) is None


def test_a_key_without_a_certificate_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--ssl-key needs --ssl-cert"):
        server_context(None, tmp_path / "key.pem")


def test_certificate_and_key_may_be_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))
    assert server_context(file, None) is not None
