"""Object stores that fail, on a server that answers as each test wants; what works is tested on every workspace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from obstore.store import S3Store
from zarr.storage import WrapperStore

from storage.artifact import Artifact
from storage.errors import DamagedError, UnreachableError, WorkspaceError
from storage.objects import ObjectFiles
from storage.workspace import Workspace
from tasks.services.seaweed import ACCESS
from tests._artifacts import artifact_of, with_rows

BUCKET = "s3://wave-tests"
USES: dict[str, Callable[[ObjectFiles], Any]] = {
    "read": lambda files: files.read("key"),
    "read_many": lambda files: files.read_many(["key", "another"]),
    "sizes": lambda files: files.sizes("key"),
    "sizes_of": lambda files: files.sizes_of(["key"]),
    "write": lambda files: files.write("key", b"1"),
    "delete": lambda files: files.delete(["key"]),
    "local_copy": lambda files: files.local_copy("key").__enter__(),
}


@dataclass
class Answers:
    """A server that answers every request alike."""

    status: int = 404
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None
    """Called before each answer."""
    url: str = ""

    def files(self, *, seconds: float = 60.0) -> ObjectFiles:
        store = S3Store(
            "wave-tests",
            endpoint=self.url,
            access_key_id=ACCESS["AWS_ACCESS_KEY_ID"],
            secret_access_key=ACCESS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True, "timeout": timedelta(seconds=seconds)},
            retry_config={"max_retries": 0},
        )
        return ObjectFiles(BUCKET, store)


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answers.before()
            self.send_response(answers.status)
            for name, value in {"Content-Length": str(len(answers.body)), **answers.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answers.body)

        do_GET = do_HEAD = do_PUT = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # of a client that has gone, or of `before`
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}"
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def hang() -> None:
    time.sleep(1)


def lose_the_connection() -> None:
    raise ConnectionResetError


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("failure", ["500", "503", "429", "timeout", "lost"])
def test_a_store_that_cannot_be_reached_does_not_look_empty(use: str, failure: str, answers: Answers) -> None:
    match failure:
        case "timeout":
            answers.before = hang
        case "lost":
            answers.before = lose_the_connection
        case _:
            answers.status = int(failure)
    with pytest.raises(UnreachableError, match=f"^the store of {BUCKET} does not answer: ") as caught:
        USES[use](answers.files(seconds=0.5 if failure == "timeout" else 60.0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("status", [401, 403])
def test_a_denied_request_is_explained_in_one_sentence(use: str, status: int, answers: Answers) -> None:
    answers.status, answers.body = status, b"<Error><Code>InvalidAccessKeyId</Code></Error>"
    with pytest.raises(WorkspaceError, match=f"^the store of {BUCKET} denies access: check its credentials") as caught:
        USES[use](answers.files())
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UnreachableError)
    assert ("InvalidAccessKeyId" in str(caught.value)) == (use != "sizes_of")  # an answer to HEAD has no body


@pytest.mark.parametrize("use", sorted(USES.keys() - {"sizes_of"}))
def test_a_bucket_that_does_not_exist_is_not_an_empty_workspace(use: str, answers: Answers) -> None:
    answers.body = b"<Error><Code>NoSuchBucket</Code></Error>"
    with pytest.raises(WorkspaceError, match=f"^the bucket of {BUCKET} does not exist"):
        USES[use](answers.files())


def test_a_request_that_will_never_succeed_is_not_one_to_repeat(answers: Answers) -> None:
    answers.status = 400
    with pytest.raises(WorkspaceError, match="refuses a request") as caught:
        answers.files().read("key")
    assert not isinstance(caught.value, ConnectionError)


def test_several_files_are_requested_at_the_same_time(answers: Answers) -> None:
    answers.status, answers.body = 200, b"123"
    answers.headers = {"ETag": '"1"', "Last-Modified": "Wed, 25 Nov 2026 12:00:00 GMT"}
    files, keys = answers.files(), [str(key) for key in range(8)]
    answers.before = threading.Barrier(8, timeout=10).wait  # returns once eight requests have been made
    assert files.read_many(keys) == dict.fromkeys(keys, b"123")
    assert files.sizes_of(keys) == dict.fromkeys(keys, 3)


def test_an_endpoint_without_tls_needs_no_further_setting(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ACCESS, "AWS_ENDPOINT_URL": answers.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    assert Workspace.open("s3://another-bucket").files.read_many(["absent"]) == {}


def test_workspaces_in_memory_are_apart_by_their_url(tmp_path: object) -> None:
    one, two = (Workspace.open(f"memory://{tmp_path}/{name}") for name in ("one", "two"))
    one.files.write("key", b"1")
    assert dict(two.files.sizes()) == {}


@dataclass
class Lossy(WrapperStore[Any]):
    """A Zarr store that cannot be reached for keys that contain a text."""

    def __init__(self, store: Any, lost: str) -> None:
        super().__init__(store)
        self.lost = lost

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if self.lost in key:
            raise UnreachableError(f"{key} is lost")
        return await super().get(key, *arguments, **options)


@pytest.mark.parametrize("lost", ["rows/zarr.json", "rows/c/1"])
@pytest.mark.parametrize(
    "use",
    [
        lambda artifact: artifact.readable_prefix("rows"),
        lambda artifact: artifact.read_region("rows"),
        lambda artifact: with_rows(artifact, 0).array("rows")[:],
    ],
)
def test_rows_that_cannot_be_reached_are_neither_absent_nor_damaged(
    use: Callable[[Artifact], object], lost: str, workspace: Workspace
) -> None:
    with_rows(artifact_of(workspace), 4)
    lossy = replace(workspace, store=Lossy(workspace.store, lost))
    with pytest.raises(UnreachableError, match="is lost"):
        use(artifact_of(lossy))
    np.testing.assert_array_equal(artifact_of(workspace).read_region("rows")[:, 0, 0], np.arange(4))


@pytest.mark.parametrize(
    "use",
    [
        lambda artifact: artifact.is_complete(),
        lambda artifact: artifact.has_file("a"),
        lambda artifact: artifact.has_part("a"),
        lambda artifact: artifact.readable_prefix("rows"),
        lambda artifact: artifact.read_bytes("a"),
        lambda artifact: artifact.completed_parts(),
    ],
)
def test_an_artifact_that_cannot_be_reached_is_not_an_incomplete_one(
    use: Callable[[Artifact], object], answers: Answers
) -> None:
    answers.status = 503
    workspace = replace(Workspace.open("memory://unused"), files=answers.files())
    with pytest.raises(UnreachableError):
        use(artifact_of(workspace))


def test_a_damaged_chunk_ends_the_readable_prefix_and_is_named(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    key = "clips/c/stage/rows/c/2/0/0"
    workspace.files.write(key, workspace.files.read(key)[:-1])
    assert artifact.readable_prefix("rows") == 2
    with pytest.raises(DamagedError, match="rows 0 to 4"):
        artifact.read_region("rows")
