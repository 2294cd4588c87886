"""The least that a result's `meta.json` states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fatezero.data.files import content_digest
from fatezero.data.manifest import request_to_json
from fatezero.types import EditRequest


def record_of(request: EditRequest) -> dict[str, Any]:
    """Of an edit whose clip lies outside the run: with the digest of the clip, which lets readers look at it."""
    return {"request": request_to_json(request), "clip_digest": content_digest(Path(request.clip.path))}
