"""What is read from certificates, by the byte."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from wsframework.diagnostics.tracing.certificates import read_certificate


def certificate(*names: str, **settings: object) -> bytes:
    issued = trustme.CA(organization_name="Tea").issue_cert(*names, **settings)  # type: ignore[arg-type]
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def test_a_certificate_is_read_by_its_fields() -> None:
    now = datetime.now(UTC)
    until = now + timedelta(days=30, hours=1)
    der = certificate("tea.example", "*.tea.example", "10.0.0.1", "::1", not_after=until, common_name="tea")
    found = read_certificate(der, now)
    assert found is not None
    assert (found.subject, found.issuer) == ("tea", "Tea")
    assert found.names == ("tea.example", "*.tea.example", "10.0.0.1", "::1")
    assert found.days_left == 30
    assert datetime.fromisoformat(found.not_after) == until.replace(microsecond=0)


def test_an_expired_certificate_has_days_below_zero() -> None:
    now = datetime.now(UTC)
    der = certificate("a.example", not_before=now - timedelta(9), not_after=now - timedelta(2, 60))
    found = read_certificate(der, now)
    assert found is not None
    assert found.days_left == -3


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 300])
def test_what_is_no_certificate_is_none(cut: int) -> None:
    assert read_certificate(certificate("a.example")[:cut], datetime.now(UTC)) is None


def test_openssl_reads_the_same() -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    der = certificate("tea.example")
    told = subprocess.run(
        [openssl, "x509", "-inform", "der", "-noout", "-enddate"], input=der, capture_output=True, check=True
    ).stdout.decode()
    found = read_certificate(der, datetime.now(UTC))
    assert found is not None
    seconds = ssl.cert_time_to_seconds(told.strip().removeprefix("notAfter="))
    assert datetime.fromisoformat(found.not_after) == datetime.fromtimestamp(seconds, UTC)
