"""What a run will take, said before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.data.video import write_video
from fatezero.diffusion.checkpoint import find_checkpoint
from fatezero.errors import UserError
from fatezero.forecast import Forecaster, check_disk, describe_forecast
from fatezero.pieces import Piece
from fatezero.pipeline import FateZero
from fatezero.tasks import Task, make_tasks, share_inversions
from fatezero.types import ClipSpec, EditRequest

METHOD = MethodConfig(steps=4, fusion=FusionConfig(self_window=(0.0, 0.5)), blending=BlendingConfig())
CHECKPOINT = find_checkpoint(str(Path(__file__).parents[1] / "golden" / "model"))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)


@pytest.fixture
def task(frames: np.ndarray, tmp_path: Path) -> Task:
    write_video(tmp_path / "clip.webp", frames, fps=8)
    clip = ClipSpec(path=str(tmp_path / "clip.webp"), height=64, width=64)
    request = EditRequest(
        id="a", clip=clip, source_prompt="a grey ball", target_prompt="a red ball", edited_words=("ball",)
    )
    return make_tasks([request], {"full": METHOD}, tmp_path / "run", lambda _: CHECKPOINT)[0]


@pytest.fixture
def editor(golden_folder: Path) -> FateZero:
    return FateZero.load(str(golden_folder / "model"), RuntimeConfig(device="cpu"), lambda _: None)


@pytest.mark.parametrize("backend", ["qk", "maps", "recompute"])
def test_bytes_are_forecast_exactly(backend: str, task: Task, frames: np.ndarray, golden_folder: Path) -> None:
    runtime = RuntimeConfig(device="cpu", backend=backend)  # type: ignore[arg-type]
    editor = FateZero.load(str(golden_folder / "model"), runtime, lambda _: None)
    forecast = Forecaster(lambda _: editor).of_job(share_inversions([task])[0])
    inversion = editor.invert(frames, task.request.source_prompt, [task.target])
    assert forecast.kept_bytes == sum(inversion.bytes_kept.values())
    assert forecast.seconds > 0
    assert backend in forecast.plan


def test_work_is_counted_not_guessed(task: Task, editor: FateZero, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every network call taken as one second, a forecast is a count of calls."""
    monkeypatch.setattr(Forecaster, "_timed", lambda *_: 1.0)

    def seconds(method: MethodConfig) -> float:
        return Forecaster(lambda _: editor).of_job(share_inversions([replace(task, method=method)])[0]).seconds

    autoencoder = 5.0  # encode and decode of five frames
    assert seconds(METHOD) == 4 + 4 + autoencoder
    assert seconds(replace(METHOD, fusion=None, blending=None, sdedit_strength=0.5)) == 2 + autoencoder


def test_a_piece_is_forecast_as_the_shorter_clip_it_is(task: Task, editor: FateZero) -> None:
    anchored = replace(task, method=replace(METHOD, norm_scope="frame", key_frames=("first",), fusion=None))
    whole = Forecaster(lambda _: editor).of_job(share_inversions([anchored])[0])
    piece = Forecaster(lambda _: editor).of_job(share_inversions([replace(anchored, piece=Piece(2, 2, 5))])[0])
    assert piece.kept_bytes * 5 == whole.kept_bytes * 3  # two own frames and the anchor


def test_a_text_says_it_all(task: Task, editor: FateZero) -> None:
    said = describe_forecast(Forecaster(lambda _: editor), share_inversions([task]), workers=2)
    assert "predicted" in said
    assert "2 processes" in said


def test_what_cannot_fit_is_refused_with_what_would(task: Task, tmp_path: Path) -> None:
    tasks = [task] * 10
    check_disk(tasks, tmp_path / "run", budget=None)
    with pytest.raises(UserError, match="about 5 would fit"):
        check_disk(tasks, tmp_path / "run", budget=5 * 5 * 5 * 64 * 64)
