"""`wave serve` and `wave deploy`: Prefect's server, the deployments and the workers."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer
from rich.table import Table

from flows.cli.console import STDERR, STDOUT, VerboseOption, WorkspaceOption, app, connect, read_settings, say
from flows.cli.options import described
from flows.settings import WaveSettings
from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from flows.cli.children import Child, Stop

__all__ = ["database_url", "server_address"]

_PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105  (the variable's name)
_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_WORKER = ("worker", "start", "--pool", "wave", "--type", "process", "--limit", "1")
_START_SECONDS = 300.0  # of the server, on a busy machine
_SCHEMES = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}

WebhookOption = Annotated[
    str | None, typer.Option(metavar="URL", help=f"{described(WaveSettings, 'webhook')} (WAVE_WEBHOOK)")
]


@app.command()
def deploy(
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Working directory of the runs; relative paths count from it.")
    ] = Path(),
    webhook: WebhookOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Create or update the deployments and the automations on the Prefect server that is set."""
    settings = read_settings(webhook=webhook)
    if not folder.is_dir():
        raise TaskInputError(f"The folder {folder} does not exist.")
    if not connect(verbose=verbose):
        raise TaskInputError("No Prefect server was found: run wave serve, or set PREFECT_API_URL.")
    from flows.automations import ensure_automations
    from flows.deployments import create_deployments

    for name in create_deployments(folder.resolve()):
        say(f"deployment {name}")
    for name in ensure_automations(settings.webhook):
        say(f"automation {name}")


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the server listens; any but this machine needs a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the server and of its pages.")] = 4200,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar=_DATABASE, help="postgresql://...; by default a SQLite file of Prefect's."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers; each runs one flow at a time.")] = 1,
    gpus: Annotated[
        str | None, typer.Option(metavar="I,J,...", help="One worker for each of these CUDA devices.")
    ] = None,
    webhook: WebhookOption = None,
    workspace: WorkspaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the options, and print what would run.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run Prefect's server, the deployments and workers on this machine, until interrupted.

    The password is read from PREFECT_SERVER_API_AUTH_STRING, as USER:PASSWORD; clients need it in
    PREFECT_API_AUTH_STRING.
    """
    from storage.workspace import Workspace

    settings = read_settings(workspace=workspace, webhook=webhook)
    plan = _Plan(
        host=host,
        port=port,
        password=_checked_password(host),
        database=None if database is None else database_url(database),
        devices=_devices(gpus, workers),
        settings=settings,
        workspace=Workspace.open(settings.workspace).url,
    )
    _check_port(plan)
    if plan.database is not None:
        _check_database(plan.database)
    if dry_run:
        STDOUT.print(_table(plan))
        return
    Workspace.open(settings.workspace).check_writable()
    _run(plan, verbose=verbose)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is served, and how."""

    host: str
    port: int
    password: str
    database: str | None
    devices: list[str | None]
    """One for each worker: the CUDA devices that it sees; None for all."""
    settings: WaveSettings
    workspace: str

    @property
    def address(self) -> str:
        """Return the URL of the server's pages, as seen from this machine."""
        return server_address(self.host, self.port)

    def environment(self) -> dict[str, str]:
        """Return the environment of the server, of the workers, and of the runs that they start."""
        from flows.cli.server import DEFAULTS, FIXED

        own = {
            "PREFECT_API_URL": f"{self.address}/api",
            "PREFECT_UI_API_URL": "/api",  # the pages call the address that the browser has, whatever its name
            "WAVE_WORKSPACE": self.workspace,
            "WAVE_WEBHOOK": self.settings.webhook,
            # A script of Prefect's runner is next to a module `storage`, which it would find before ours
            "PYTHONSAFEPATH": "1",
        }
        if self.password:
            own |= {_PASSWORD: self.password, "PREFECT_API_AUTH_STRING": self.password}
        if self.database is not None:
            own[_DATABASE] = self.database
        return DEFAULTS | os.environ | FIXED | own


def server_address(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens on an address."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (a comparison)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_password(host: str) -> str:
    """Return the password of the environment; empty for none.

    Raises:
        TaskInputError: if there is none and other machines can reach the server, or if it has no user.
    """
    password = os.environ.get(_PASSWORD) or os.environ.get("PREFECT_API_AUTH_STRING") or ""
    if not password and not _is_loopback(host):
        raise TaskInputError(
            f"Other machines can reach {host}, so the server needs a password: set {_PASSWORD} to USER:PASSWORD."
        )
    user, _, secret = password.partition(":")
    if password and not (user and secret):
        raise TaskInputError(f"{_PASSWORD} must have the form USER:PASSWORD.")
    return password


def database_url(url: str) -> str:
    """Return the URL of a database with the driver that Prefect uses.

    Raises:
        TaskInputError: for anything but PostgreSQL and SQLite.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise TaskInputError(
            f"The database must be postgresql://USER:PASSWORD@HOST/NAME or sqlite+aiosqlite:///FILE, not {parts.scheme}://."
            if parts.scheme
            else "The database must be a URL: postgresql://USER:PASSWORD@HOST/NAME or sqlite+aiosqlite:///FILE."
        )
    return urlunsplit(parts._replace(scheme=_SCHEMES[parts.scheme])) if parts.netloc else url


def _devices(gpus: str | None, workers: int) -> list[str | None]:
    if gpus is None:
        return [None] * workers
    found = [name.strip() for name in gpus.split(",")]
    if not all(name.isdigit() for name in found) or len(set(found)) < len(found):
        raise TaskInputError(f"The GPUs {gpus!r} are not different whole numbers joined by commas, such as 0,1.")
    return list(found)


def _check_port(plan: _Plan) -> None:
    """Check that the server can listen.

    Raises:
        TaskInputError: if not.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(plan.host, plan.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TaskInputError(
            f"The server cannot listen on {plan.host}, port {plan.port} ({reason}): choose another --port or --host."
        ) from error


def _check_database(url: str) -> None:
    """Check that a PostgreSQL database answers.

    Raises:
        TaskInputError: if not; the sentence does not contain the password.
    """
    if not url.startswith("postgresql"):
        return
    import asyncpg

    async def ask() -> None:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)
        await connection.close()

    place = urlsplit(url)
    try:
        asyncio.run(ask())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TaskInputError(
            f"The database {place.path.lstrip('/')} on {place.hostname} cannot be used: {reason}"
        ) from None


def _table(plan: _Plan) -> Table:
    """Lay out what would run."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("server", plan.address)
    table.add_row("password", "yes" if plan.password else "none")
    table.add_row("database", "SQLite" if plan.database is None else urlsplit(plan.database).scheme.split("+")[0])
    gpus = ", ".join(device for device in plan.devices if device is not None)
    table.add_row("workers", f"{len(plan.devices)}, on GPU {gpus}" if gpus else str(len(plan.devices)))
    table.add_row("workspace", plan.workspace)
    table.add_row("webhook", "set" if plan.settings.webhook else "none")
    return table


def _run(plan: _Plan, *, verbose: bool) -> None:
    """Start everything, keep it running, and end it on a signal."""
    from flows.cli.children import Child, end_children, run_to_end, stop_signals, watch

    env = plan.environment()
    command = (sys.executable, "-m", "prefect")
    address = ("--host", plan.host, "--port", str(plan.port), "--log-level", "INFO" if verbose else "WARNING")
    server = Child(name="server", command=(*command, "server", "start", *address), env=env, quiet=not verbose)
    deploying = Child(name="deployment", command=(sys.executable, "-m", "flows.cli", "deploy"), env=env)
    workers = [
        Child(
            name=f"worker {number}",
            command=(*command, *_WORKER, "--name", f"{socket.gethostname()}-{number}"),
            env=env if device is None else env | {"CUDA_VISIBLE_DEVICES": device},
        )
        for number, device in enumerate(plan.devices, start=1)
    ]
    with stop_signals() as stop:
        try:
            server.start()
            if not _wait_for_server(server, plan, stop) or run_to_end(deploying, stop) != 0:
                if not stop.is_set():
                    raise TaskInputError("The deployments could not be created; what was printed says why.")
                return
            STDERR.print(f"Prefect: {plan.address}, with {len(workers)} worker(s). Ctrl-C ends everything.")
            watch([server, *workers], stop)
        finally:
            STDERR.print("Ending")
            end_children([*workers, deploying], stop)
            end_children([server], stop)


def _wait_for_server(server: Child, plan: _Plan, stop: Stop) -> bool:
    """Return whether the server answers before a signal comes.

    Raises:
        TaskInputError: if it ends, or does not answer for minutes.
    """
    from flows.cli.server import is_healthy

    end = time.monotonic() + _START_SECONDS
    with STDERR.status("Starting the server"):
        while not stop.wait(0.5):
            if not server.is_alive() or time.monotonic() > end:
                raise TaskInputError("The server did not start; what it printed says why.")
            if is_healthy(f"{plan.address}/api"):
                return True
    return False
