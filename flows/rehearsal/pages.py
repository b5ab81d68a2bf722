"""Pictures of Prefect's pages, by a headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Browser", "find_chromium"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_SECONDS: Final = 180
_BUDGET_MS: Final = 40_000  # of the page's own clock, for its requests


def find_chromium() -> str | None:
    """Return the path of Chromium; None where it is not installed."""
    return next((found for found in map(shutil.which, _NAMES) if found), None)


@dataclass(frozen=True, slots=True)
class Browser:
    """Takes pictures, or none without a folder."""

    folder: Path | None
    address: str
    """URL of Prefect's pages, without a path."""

    def picture(self, path: str, name: str) -> str:
        """Save a picture of a page as NAME.png.

        Returns:
            Why there is none, if Chromium fails; else nothing.
        """
        if self.folder is None:
            return ""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = (self.folder / f"{name}.png").absolute()
        target.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="wave-chromium-") as profile:
            command = [
                find_chromium() or _NAMES[0],
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
                f"--user-data-dir={profile}",
                "--window-size=1200,1100",
                f"--virtual-time-budget={_BUDGET_MS}",
                f"--screenshot={target}",
                f"{self.address}{path}",
            ]
            try:
                subprocess.run(command, timeout=_SECONDS, capture_output=True, check=False)  # noqa: S603
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"Chromium took no picture of {path}: {error}"
        return "" if target.exists() else f"Chromium took no picture of {path}"
