from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_TLS_INSECURE_SKIP_VERIFY, temporary_settings

import tasks.stage  # noqa: F401  (what a worker imports)

URL = "http://127.0.0.1:1/api"


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the path of each file of certificates is added that is read from now on."""
    found: list[str] = []
    load = ssl.SSLContext.load_verify_locations

    def noted(context: ssl.SSLContext, cafile: str | None = None, *rest: str | None) -> None:
        found.append(str(cafile))
        load(context, cafile, *rest)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", noted)
    return found


def copy_of_certificates(folder: Path) -> str:
    copy = folder / "certificates.pem"
    copy.write_bytes(Path(certifi.where()).read_bytes())
    return str(copy)


def test_clients_of_a_process_read_a_file_of_certificates_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, found = copy_of_certificates(tmp_path), reads(monkeypatch)
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: file}):
        for _ in range(3):
            SyncPrefectClient(URL)
    assert found == [file]


def test_a_client_that_checks_no_certificates_changes_no_other(tmp_path: Path) -> None:
    file = copy_of_certificates(tmp_path)
    with temporary_settings({PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
        SyncPrefectClient(URL)
    for options in ({"cafile": file}, {}):
        assert ssl.create_default_context(**options).verify_mode is ssl.CERT_REQUIRED
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: file}):
        client = SyncPrefectClient(URL)
    pool = client._client._transport._pool  # type: ignore[attr-defined]
    assert pool._ssl_context.verify_mode is ssl.CERT_REQUIRED
