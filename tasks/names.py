"""Names of the files inside artifacts."""

from __future__ import annotations

__all__ = ["AUDIO", "CONTACT_SHEET", "EDITED", "REPORT", "SIDE_BY_SIDE"]

AUDIO = "audio.mka"
EDITED = "edited.mp4"
CONTACT_SHEET = "contact_sheet.png"
SIDE_BY_SIDE = "side_by_side.mp4"
REPORT = "report.json"
