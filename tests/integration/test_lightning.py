"""Predict steps over requests: sharing, writing, and what becomes of failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import Trainer

from fatezero.config import FusionConfig, MethodConfig, RuntimeConfig
from fatezero.data.video import write_video
from fatezero.errors import UserError
from fatezero.lightning.datamodule import EditDataModule, group_requests, sized
from fatezero.lightning.modules import EditingModule, InversionModule, Outcome
from fatezero.lightning.writers import ResultWriter
from fatezero.types import ClipSpec, EditRequest

METHOD = MethodConfig(steps=2, fusion=FusionConfig(), blending=None)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipSpec:
    path = tmp_path_factory.mktemp("clips") / "grey.mp4"
    write_video(path, np.full((2, 64, 64, 3), 99, np.uint8), fps=8)
    return ClipSpec(path=str(path), height=64, width=64)


def request(clip: ClipSpec, name: str, target: str = "a red ball", **changes: Any) -> EditRequest:
    return EditRequest(id=name, clip=clip, source_prompt="a grey ball", target_prompt=target, **changes)


def trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def test_requests_share_an_inversion_where_they_can(clip: ClipSpec) -> None:
    requests = [
        request(clip, "a"),
        request(clip, "b", "a blue ball", settings={"guidance_scale": 2.0, "fusion.self_window": [0.0, 0.3]}),
        request(clip, "c", settings={"steps": 3}),
        request(clip, "d", settings={"key_frames": ["middle"]}),
        request(replace(clip, start=1), "e"),
        request(clip, "f", seed=7),
        request(clip, "g", settings={"fusion": None}),
        request(clip, "h", "a red ball", edited_words=("ball",)),
    ]
    jobs = group_requests(requests, METHOD)
    assert [[r.id for r in job.requests] for job in jobs] == [["a", "b", "f", "g", "h"], ["c"], ["d"], ["e"]]
    assert jobs[0].targets[1].method.guidance_scale == 2.0
    assert jobs[0].targets[3].method.fusion is None
    sampled = group_requests(requests, replace(METHOD, posterior="sample"))
    assert [r.id for r in sampled[0].requests] == ["a", "b", "g", "h"]  # another seed draws another latent


@pytest.mark.parametrize("settings", [{"fusion.windows": 1}, {"steps": "many"}, {"nothing": 1}, {"steps.more": 1}])
def test_wrong_settings_name_the_request(settings: dict[str, Any], clip: ClipSpec) -> None:
    with pytest.raises(UserError, match="request a"):
        group_requests([request(clip, "a", settings=settings)], METHOD)


def test_editing_writes_as_it_goes(clip: ClipSpec, golden_folder: Path, tmp_path: Path) -> None:
    requests = [request(clip, "one"), request(clip, "two", "a blue ball"), request(clip, "bad", edited_words=("x",))]
    requests.append(request(replace(clip, path="gone.mp4"), "gone"))
    blended = replace(METHOD, blending=MethodConfig().blending)
    module = EditingModule(str(golden_folder / "model"), RuntimeConfig(), report=lambda _: None)
    writer = ResultWriter(tmp_path)
    jobs = group_requests(requests, blended)
    assert len(jobs) == 2  # the bad word stands beside sound requests of the same clip
    data = EditDataModule(jobs)
    trainer(callbacks=[writer]).predict(module, data, return_predictions=False)
    assert sorted(p.parent.name for p in tmp_path.glob("*/meta.json")) == ["one", "two"]
    assert [name for name, _ in writer.failures] == ["bad", "gone"]
    assert "'x' is not a word" in writer.failures[0][1]


def test_inversion_is_a_predict_step(clip: ClipSpec, golden_folder: Path) -> None:
    module = InversionModule(str(golden_folder / "model"), RuntimeConfig(), report=lambda _: None)
    jobs = group_requests([request(clip, "one")], METHOD)
    (outcome,) = trainer().predict(module, EditDataModule(jobs)) or []
    assert outcome.result.trajectory.latents.shape == (3, 2, 4, 8, 8)


def test_predictions_come_back_on_request(clip: ClipSpec, golden_folder: Path) -> None:
    module = EditingModule(str(golden_folder / "model"), RuntimeConfig(), report=lambda _: None)
    jobs = group_requests([request(clip, "one"), request(clip, "two", "a blue ball")], METHOD)
    outcomes = trainer().predict(module, EditDataModule(jobs)) or []
    assert [type(outcome) for outcome in outcomes] == [Outcome, Outcome]
    assert not np.array_equal(outcomes[0].result.frames, outcomes[1].result.frames)


def test_a_job_is_inverted_once(clip: ClipSpec, golden_folder: Path) -> None:
    said: list[str] = []
    module = EditingModule(str(golden_folder / "model"), RuntimeConfig(), report=said.append)
    jobs = group_requests([request(clip, "one"), request(clip, "two", "a blue ball")], METHOD)
    trainer().predict(module, EditDataModule(jobs))
    assert len([line for line in said if line.startswith("kept")]) == 1


def test_a_size_left_open_is_the_checkpoints(clip: ClipSpec) -> None:
    open_size = replace(clip, height=None, width=None)
    assert (sized(open_size, 128, 32).height, sized(open_size, 128, 32).width) == (128, 128)
    assert sized(clip, 128, 32) == clip
    assert sized(replace(open_size, height=96), 128, 32).width == 96
    assert sized(replace(open_size, width=256), 128, 32).height == 256
