"""The main group on the shipped default, as a new user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fatezero import shipped
from fatezero.cli import main
from fatezero.clips.video import read_clip

ROOT = Path(__file__).parents[2]


def frames_of(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "frames").glob("*.png"))]).astype(int)


def test_edit_with_no_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["edit", "--steps", "4"]) == 0
    result = tmp_path / "runs" / "edit" / "fatezero" / "demo"
    source = read_clip(shipped.DEMO.clip).frames.astype(int)
    edited = frames_of(result)
    assert edited.shape == source.shape
    assert 3 < abs(edited - source).mean() < 60  # changed, and still the same scene
    masks = np.stack([np.asarray(Image.open(path)) for path in sorted((result / "masks").glob("*.png"))])
    assert 0.3 < (masks > 127).mean() < 0.95  # a word of the background looks at much of it, not at the object
    assert json.loads((result / "meta.json").read_text())["config"]["blending"]["mask_downsampling"] == 2


@pytest.mark.slow
def test_a_real_clip(tmp_path: Path) -> None:
    manifest = ROOT / "datasets" / "bigbuckbunny" / "manifest.yaml"
    assert main(["edit", f"--manifest={manifest}", "--steps=4", f"--out={tmp_path}"]) == 0
    results = sorted(path.parent for path in tmp_path.glob("fatezero/*/meta.json"))
    assert len(results) == 4
    for result in results:
        assert frames_of(result).shape == (8, 128, 160, 3)


@pytest.mark.slow
def test_a_long_clip_in_chunks(tmp_path: Path) -> None:
    """A clip of 64 frames, cut at the anchors."""
    manifest = ROOT / "datasets" / "picturebook" / "long.yaml"
    options = ["--steps=2", "--norm_scope=frame", "--backend=recompute", f"--out={tmp_path}"]
    assert main(["edit", f"--manifest={manifest}", *options]) == 0
    results = sorted(path.parent for path in tmp_path.glob("fatezero/*/meta.json"))
    assert results
    assert all(len(frames_of(result)) == 64 for result in results)
