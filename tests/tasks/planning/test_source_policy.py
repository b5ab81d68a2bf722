"""What sources may be read from; servers run on loopback, which has to be allowed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import TaskInputError
from tasks.planning import source_policy
from tasks.planning.dataset import dataset_request
from tasks.planning.faults import ManifestError
from tasks.planning.input_video import check_video, local_video
from tasks.planning.rows import read_rows
from tasks.planning.source_policy import check_url, open_filesystem, read_policy

HEADING = "id,source,prompt\n"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCHEMES", "HOSTS", "PRIVATE_HOSTS", "ROOTS"):
        monkeypatch.delenv(f"WAVE_SOURCE_{name}", raising=False)


class _Handler(BaseHTTPRequestHandler):
    """Answers /clip.mp4, and redirects /to/URL."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"video")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Any]:
    pytest.importorskip("aiohttp", reason="there is no driver of http")
    handler = type("Handler", (_Handler,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def url(server: Any, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.server_address[1]}/{path}"


def asked(server: Any) -> list[str]:
    return list(server.RequestHandlerClass.asked)


def content(address: str) -> bytes:
    with local_video(address) as path:
        return path.read_bytes()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://host/a.mp4", "has the scheme ftp, and WAVE_SOURCE_SCHEMES allows https"),
        ("github://me:repo@/a.mp4", "contains a password"),
        ("https://me:secret@host/a.mp4", "The URL https://***@host/a.mp4 contains a password"),
        ("simplecache::https://host/a.mp4", "joins several with ::"),
        ("zip://a.mp4::http://127.0.0.1/a.zip", "joins several with ::"),
        ("http://localhost/a.mp4", "is of this machine or its network: WAVE_SOURCE_PRIVATE_HOSTS=1"),
        ("http://127.0.0.1/a.mp4", "is of this machine"),
        ("http://169.254.169.254/latest/meta-data", "is of this machine"),
        ("http://10.1.2.3/a.mp4", "is of this machine"),
        ("http://[fd00:0:0:0:0:0:0:1]/a.mp4", "is of this machine"),
        ("http://[0:0:0:0:0:ffff:7f00:1]/a.mp4", "is of this machine"),
        ("http://metadata.google.internal/a.mp4", "is of this machine"),
        ("http://[fd00::1/a.mp4", "The URL http://[fd00::1/a.mp4 cannot be used: Invalid IPv6 URL."),
        ("gs://bucket/a.mp4", "(all of them: wave-edit[urls])"),
    ],
)
def test_a_url_that_may_not_be_read_is_refused_without_a_connection(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_scheme: str) -> None:
        raise ImportError("install gcsfs")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("no name is resolved"))
    monkeypatch.setattr(source_policy.fsspec, "get_filesystem_class", missing)
    with pytest.raises(TaskInputError) as caught:
        check_video(address)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_hosts_and_buckets_may_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_SOURCE_HOSTS", "*.example.org, clips")
    monkeypatch.setenv("WAVE_SOURCE_SCHEMES", "https,memory")
    monkeypatch.setattr(source_policy.fsspec, "get_filesystem_class", lambda _: None)
    for allowed in ("https://cdn.example.org/a.mp4", "memory://clips/a.mp4"):
        check_url(allowed)
    for refused in ("https://example.com/a.mp4", "https://example.org.evil.com/a.mp4", "memory://others/a.mp4"):
        with pytest.raises(TaskInputError, match="WAVE_SOURCE_HOSTS allows"):
            check_url(refused)


def test_a_loopback_server_is_asked_only_where_that_is_allowed(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskInputError, match="WAVE_SOURCE_PRIVATE_HOSTS"):
        content(url(server, "clip.mp4"))
    assert asked(server) == []
    monkeypatch.setenv("WAVE_SOURCE_PRIVATE_HOSTS", "1")
    assert content(url(server, "clip.mp4?token=a")) == b"video"


def test_a_name_that_resolves_to_a_private_address_is_not_asked(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, port = socket.getaddrinfo, server.server_address[1]

    def rebound(_host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with pytest.raises(TaskInputError, match=r"127\.0\.0\.1 is a private address"):
        content(f"http://clips.example.org:{port}/clip.mp4")
    assert asked(server) == []


def test_a_redirect_is_held_to_the_policy(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_SOURCE_PRIVATE_HOSTS", "1")
    assert content(url(server, f"to/{url(server, 'clip.mp4')}")) == b"video"
    monkeypatch.setenv("WAVE_SOURCE_HOSTS", "127.0.0.1")
    for target in (url(server, "clip.mp4", host="localhost"), "file:///etc/hostname"):
        before = len(asked(server))
        with pytest.raises(TaskInputError, match=r"WAVE_SOURCE_HOSTS|redirect to file"):
            content(url(server, f"to/{target}"))
        assert len(asked(server)) == before + 1


def test_a_redirect_to_a_private_address_is_not_followed(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    public = url(server, f"to/{url(server, 'clip.mp4')}")
    check, opened = source_policy._is_private, []

    def first_is_public(address: str) -> bool:
        opened.append(address)
        return len(opened) > 1 and check(address)

    monkeypatch.setattr(source_policy, "_is_private", first_is_public)
    monkeypatch.setattr(source_policy, "_is_private_name", lambda _: False)
    with pytest.raises(TaskInputError, match="private address"):
        content(public + "?again")  # a new connection each time: the server closes it
    assert asked(server) == [f"/to/{url(server, 'clip.mp4')}?again"]


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("127.8.8.8", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),  # noqa: S104  (an address to refuse)
        ("224.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:7f00:1::", True),
        ("no address", False),
    ],
)
def test_addresses_of_one_public_host_are_told_from_others(address: str, private: bool) -> None:
    assert source_policy._is_private(address) is private


def test_other_drivers_are_checked_by_what_the_name_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_SOURCE_SCHEMES", "ftp")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", ("192.168.0.9", 0))])
    with pytest.raises(TaskInputError, match=r"has the private address 192\.168\.0\.9"):
        open_filesystem("ftp://files.example.org/a.mp4")


def test_a_wrong_variable_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_SOURCE_PRIVATE_HOSTS", "perhaps")
    with pytest.raises(TaskInputError, match="WAVE_SOURCE_PRIVATE_HOSTS cannot be 'perhaps'"):
        read_policy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set" / "clips").mkdir(parents=True)
    for name in ("set/clips/1.mp4", "outside.mp4"):
        (tmp_path / name).write_bytes(b"video")
    (tmp_path / "set" / "linked.mp4").symlink_to(tmp_path / "outside.mp4")
    return tmp_path / "set"


def sources(manifest: Path, *names: object, **options: Any) -> list[str]:
    lines = [f"{number},{name},a star\n" for number, name in enumerate(names)]
    manifest.write_text(HEADING + "".join(lines))
    return [row.source for row in read_rows(dataset_request(source=str(manifest)), **options)]


@pytest.mark.parametrize(
    "name", ["../outside.mp4", "{outside}", "linked.mp4", "file://{outside}", "clips/../../outside.mp4"]
)
def test_a_manifest_names_no_file_outside_of_its_folder_unless_allowed(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = name.replace("{outside}", str(folder.parent / "outside.mp4"))
    with pytest.raises(ManifestError, match="outside of the manifest's folder"):
        sources(folder / "set.csv", "clips/1.mp4", named)
    monkeypatch.setenv("WAVE_SOURCE_ROOTS", f"/nowhere:{folder.parent}")
    assert len(sources(folder / "set.csv", "clips/1.mp4", named)) == 2


def test_a_manifest_that_a_run_wrote_names_files_anywhere(folder: Path) -> None:
    own = folder.parent / "workspace" / "tables" / "status"
    (own / "set").mkdir(parents=True)
    outside = folder.parent / "outside.mp4"
    assert sources(own / "set" / "failed.csv", outside, own_tables=str(own)) == [str(outside)]
    with pytest.raises(ManifestError, match="outside"):
        sources(folder / "failed.csv", outside, own_tables=str(own))


@pytest.mark.parametrize("name", ["../other/1.mp4", "%2e%2e/1.mp4", "/etc/hostname", "file:///etc/hostname"])
def test_a_manifest_by_url_names_neither_local_files_nor_what_is_above_it(name: str) -> None:
    filesystem, _ = open_filesystem("memory://policy/set/m.csv")
    filesystem.pipe_file("/policy/set/m.csv", f"{HEADING}1,{name},a star\n".encode())
    with pytest.raises(ManifestError, match="outside of the manifest's folder"):
        read_rows(dataset_request(source="memory://policy/set/m.csv"))


def test_a_password_in_a_manifest_is_refused_and_not_repeated(folder: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        sources(folder / "set.csv", "https://me:secret@host/a.mp4")
    assert "contains a password" in str(caught.value)
    assert "secret" not in str(caught.value)
