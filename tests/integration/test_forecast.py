"""What a run will take, said before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fatezero.clips.video import write_video
from fatezero.config import BlendingConfig, FlowEditConfig, FusionConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import find_checkpoint
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.runs.disk_space import check_disk
from fatezero.runs.forecast import Forecaster, describe_forecast
from fatezero.runs.jobs import EditJob, make_jobs
from fatezero.runs.scheduling import cost, share_inversions
from fatezero.runs.segments import Segment
from fatezero.types import ClipSpec, EditRequest

METHOD = MethodConfig(steps=4, fusion=FusionConfig(self_window=(0.0, 0.5)), blending=BlendingConfig())
CHECKPOINT = find_checkpoint(ModelOptions(model=str(Path(__file__).parents[1] / "golden" / "model")))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)


@pytest.fixture
def job(frames: np.ndarray, tmp_path: Path) -> EditJob:
    write_video(tmp_path / "clip.webp", frames, 8)
    clip = ClipSpec(path=str(tmp_path / "clip.webp"), height=64, width=64)
    request = EditRequest(
        id="a", clip=clip, source_prompt="a grey ball", target_prompt="a red ball", edited_words=("ball",)
    )
    return make_jobs([request], {"full": METHOD}, tmp_path / "run", lambda _: CHECKPOINT)[0]


@pytest.fixture
def editor(golden_folder: Path) -> FateZero:
    return FateZero.load(str(golden_folder / "model"), RuntimeConfig(device="cpu"), lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "contexts"), [("qk", 2), ("maps", 2), ("maps", 1), ("recompute", 1)])
def test_bytes_are_forecast_exactly(
    backend: str, contexts: int, job: EditJob, frames: np.ndarray, golden_folder: Path
) -> None:
    job = replace(job, method=replace(METHOD, prompt_contexts=contexts))
    runtime = RuntimeConfig(device="cpu", backend=backend)  # type: ignore[arg-type]
    editor = FateZero.load(str(golden_folder / "model"), runtime, lambda _: None)
    forecast = Forecaster(lambda _: editor).of_group(share_inversions([job])[0])
    inversion = editor.invert(frames, job.request.source_prompt, [job.target])
    assert forecast.kept_bytes == sum(inversion.bytes_kept.values())
    assert forecast.seconds > 0
    assert backend in forecast.plan


@pytest.mark.slow
def test_work_is_counted_not_guessed(job: EditJob, editor: FateZero, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every network call taken as one second, a forecast is a count of calls."""
    monkeypatch.setattr(Forecaster, "_timed", lambda *_: 1.0)

    def seconds(method: MethodConfig) -> float:
        return Forecaster(lambda _: editor).of_group(share_inversions([replace(job, method=method)])[0]).seconds

    autoencoder = 5 / 2  # encode and decode of five frames, of which two are timed at once
    assert seconds(METHOD) == 4 + 4 + autoencoder
    assert seconds(replace(METHOD, fusion=None, blending=None, sdedit_strength=0.5)) == 2 + autoencoder


@pytest.mark.slow
def test_saved_calls_are_not_counted(job: EditJob, editor: FateZero, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a second for each branch of a whole call, and a quarter where features are reused."""

    def timed(_: Forecaster, kind: tuple[object, ...], _work: object) -> float:
        return 0.0 if kind[0] == "autoencoder" else float(kind[-2]) * (0.25 if kind[-1] else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr(Forecaster, "_timed", timed)

    def seconds(**changes: object) -> float:
        method = replace(METHOD, fusion=None, blending=None, **changes)  # type: ignore[arg-type]
        return Forecaster(lambda _: editor).of_group(share_inversions([replace(job, method=method)])[0]).seconds

    assert seconds() == 4 + 4 * 2
    assert seconds(guidance_window=(0.5, 1.0)) == 4 + 4 + 2
    assert seconds(guidance_every=3) == 4 + 4 + 2
    assert seconds(feature_reuse=2) == (3 + 0.25) + 2 * (2 + 0.5)  # the inversion's first step is whole as well


def test_costs_follow_the_calls(job: EditJob) -> None:
    def calls(**changes: object) -> float:
        group = share_inversions([replace(job, method=replace(METHOD, steps=10, **changes))])[0]  # type: ignore[arg-type]
        return cost(group) / 5  # frames

    assert calls() == 10 + 20
    assert calls(guidance_every=2) == 10 + 15
    assert calls(guidance_window=(0.0, 0.3)) == 10 + 13
    assert 15 < calls(feature_reuse=2) < 30
    flow_edit = FlowEditConfig(n_max=0.5, n_avg=2)
    assert calls(fusion=None, blending=None, flow_edit=flow_edit) == 5 * 2 * (2 + 2)  # of source and target


@pytest.mark.slow
def test_a_piece_is_forecast_as_the_shorter_clip_it_is(job: EditJob, editor: FateZero) -> None:
    anchored = replace(job, method=replace(METHOD, norm_scope="frame", key_frames=("first",), fusion=None))
    whole = Forecaster(lambda _: editor).of_group(share_inversions([anchored])[0])
    segment = Forecaster(lambda _: editor).of_group(share_inversions([replace(anchored, segment=Segment(2, 2, 5))])[0])
    assert segment.kept_bytes * 5 == whole.kept_bytes * 3  # two own frames and the anchor


@pytest.mark.slow
def test_a_text_says_it_all(job: EditJob, editor: FateZero) -> None:
    said = describe_forecast(Forecaster(lambda _: editor), share_inversions([job]), workers=2)
    assert "predicted" in said
    assert "2 processes" in said


def test_what_cannot_fit_is_refused_with_what_would(job: EditJob, tmp_path: Path) -> None:
    jobs = [job] * 10
    check_disk(jobs, tmp_path / "run", budget=None)
    with pytest.raises(UserError, match="about 5 would fit"):
        check_disk(jobs, tmp_path / "run", budget=5 * 5 * 5 * 64 * 64)
