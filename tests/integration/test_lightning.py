"""Predict steps over jobs: sharing, writing, and what becomes of failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import Trainer

from fatezero.clips.video import write_video
from fatezero.config import FusionConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import find_checkpoint, sized
from fatezero.errors import UserError
from fatezero.lightning.datamodule import JobDataModule
from fatezero.lightning.predict_steps import EditingModule, EditorFactory, InversionModule, Prediction
from fatezero.lightning.writers import ResultWriter
from fatezero.runs.jobs import EditJob, InversionGroup, make_jobs
from fatezero.runs.scheduling import cost, share_inversions, spread
from fatezero.runs.state import failure_reason
from fatezero.types import ClipSpec, EditRequest

METHOD = MethodConfig(steps=2, fusion=FusionConfig(), blending=None)
CHECKPOINT = find_checkpoint(ModelOptions(model=str(Path(__file__).parents[1] / "golden" / "model")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipSpec:
    path = tmp_path_factory.mktemp("clips") / "grey.mp4"
    write_video(path, np.full((2, 64, 64, 3), 99, np.uint8), 8)
    return ClipSpec(path=str(path), height=64, width=64)


@pytest.fixture
def factory() -> EditorFactory:
    return EditorFactory(runtime=RuntimeConfig(), quiet=True)


def request(clip: ClipSpec, name: str, target: str = "a red ball", **changes: Any) -> EditRequest:
    return EditRequest(id=name, clip=clip, source_prompt="a grey ball", target_prompt=target, **changes)


def jobs(requests: list[EditRequest], method: MethodConfig = METHOD, run: Path = Path("run")) -> list[EditJob]:
    return make_jobs(requests, {"full": method}, run, lambda _: CHECKPOINT)


def names(groups: list[InversionGroup]) -> list[list[str]]:
    return [[job.request.id for job in group.jobs] for group in groups]


def trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def test_tasks_share_an_inversion_where_they_can(clip: ClipSpec) -> None:
    requests = [
        request(clip, "a"),
        request(clip, "b", "a blue ball", settings={"guidance_scale": 2.0, "fusion.self_window": [0.0, 0.3]}),
        request(clip, "c", settings={"steps": 3}),
        request(clip, "d", settings={"key_frames": ["middle"]}),
        request(replace(clip, start=1), "e"),
        request(clip, "f", seed=7),
        request(clip, "g", settings={"fusion": None}),
        request(clip, "h", settings={"blending.mask_downsampling": 2}),
        request(clip, "i", settings={"blending.mask_downsampling": 4}),
        request(clip, "j", settings={"blending.mask_downsampling": 2}),
    ]
    groups = share_inversions(jobs(requests))
    assert names(groups) == [["h", "j", "a", "b", "f", "g"], ["i"], ["c"], ["d"], ["e"]]  # masks where one has them
    assert groups[0].jobs[3].method.guidance_scale == 2.0
    assert groups[0].jobs[5].method.fusion is None
    sampled = share_inversions(jobs(requests[:6], replace(METHOD, posterior="sample")))
    assert names(sampled)[0] == ["a", "b"]  # another seed draws another latent


def test_further_seeds_get_their_own_folder(clip: ClipSpec) -> None:
    made = jobs([request(clip, "a", seed=5), request(clip, "a", seed=6)])
    assert [job.folder for job in made] == [Path("run/full/a"), Path("run/full/a@6")]
    assert made[0].digest != made[1].digest


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
def test_work_is_shared_out_once_and_evenly(workers: int, clip: ClipSpec) -> None:
    several = [request(clip, f"edit{i}", f"a {word} ball") for i, word in enumerate(("red", "blue", "green"))]
    longer = [request(replace(clip, start=1, frames=1), f"one{i}", settings={"steps": 2 + i}) for i in range(4)]
    groups = share_inversions(jobs(several + longer))
    shares = spread(groups, workers)
    assert len(shares) == workers
    done = [job.request.id for share in shares for group in share for job in group.jobs]
    assert sorted(done) == sorted(r.id for r in several + longer)
    load = [sum(map(cost, share)) for share in shares]
    assert max(load) <= 4 / 3 * max(sum(load) / workers, *map(cost, (group for s in shares for group in s)))


def test_digests_tell_what_decides_a_result(clip: ClipSpec, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    write_video(other, np.full((2, 64, 64, 3), 98, np.uint8), 8)
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(Path(clip.path).read_bytes())
    (first,) = jobs([request(clip, "a")])
    assert jobs([request(replace(clip, path=str(moved)), "a", category="style")])[0].digest == first.digest
    for changed in (
        jobs([request(replace(clip, path=str(other)), "a")]),
        jobs([request(clip, "a", "a blue ball")]),
        jobs([request(clip, "a")], replace(METHOD, steps=3)),
        make_jobs(
            [request(clip, "a")],
            {"full": METHOD},
            Path("run"),
            lambda _: find_checkpoint(ModelOptions(model="picturebook")),
        ),
    ):
        assert changed[0].digest != first.digest


@pytest.mark.parametrize("settings", [{"fusion.windows": 1}, {"steps": "many"}, {"nothing": 1}, {"steps.more": 1}])
def test_wrong_settings_name_the_request(settings: dict[str, Any], clip: ClipSpec) -> None:
    with pytest.raises(UserError, match="request a"):
        jobs([request(clip, "a", settings=settings)])


@pytest.mark.slow
def test_editing_writes_as_it_goes(clip: ClipSpec, factory: EditorFactory, tmp_path: Path) -> None:
    requests = [request(clip, "one"), request(clip, "two", "a blue ball"), request(clip, "bad", edited_words=("x",))]
    requests.append(request(replace(clip, path="gone.mp4"), "gone"))
    made = jobs(requests, replace(METHOD, blending=MethodConfig().blending), tmp_path)
    groups = share_inversions(made)
    assert len(groups) == 2  # the bad word stands beside sound requests of the same clip
    writer = ResultWriter(tmp_path)
    trainer(callbacks=[writer]).predict(EditingModule(factory), JobDataModule(groups), return_predictions=False)
    assert sorted(p.parent.name for p in tmp_path.glob("full/*/meta.json")) == ["one", "two"]
    assert sorted(p.name for p in tmp_path.glob("full/*.failed.json")) == ["bad.failed.json", "gone.failed.json"]
    assert "'x' is not a word" in failure_reason(tmp_path / "full" / "bad")


@pytest.mark.slow
def test_inversion_is_a_predict_step(clip: ClipSpec, factory: EditorFactory) -> None:
    groups = share_inversions(jobs([request(clip, "one")]))
    (prediction,) = trainer().predict(InversionModule(factory), JobDataModule(groups)) or []
    assert prediction.result.trajectory.latents.shape == (3, 2, 4, 8, 8)


@pytest.mark.slow
def test_predictions_come_back_on_request(clip: ClipSpec, factory: EditorFactory) -> None:
    groups = share_inversions(jobs([request(clip, "one"), request(clip, "two", "a blue ball")]))
    outcomes = trainer().predict(EditingModule(factory), JobDataModule(groups)) or []
    assert [type(prediction) for prediction in outcomes] == [Prediction, Prediction]
    assert not np.array_equal(outcomes[0].result.frames, outcomes[1].result.frames)


@pytest.mark.slow
def test_a_job_is_inverted_once(clip: ClipSpec, factory: EditorFactory, capsys: pytest.CaptureFixture[str]) -> None:
    groups = share_inversions(jobs([request(clip, "one"), request(clip, "two", "a blue ball")]))
    trainer().predict(EditingModule(replace(factory, quiet=False, verbose=True)), JobDataModule(groups))
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("kept")]) == 1


def test_a_size_left_open_is_the_checkpoints(clip: ClipSpec) -> None:
    open_size = replace(clip, height=None, width=None)
    assert (sized(open_size, 128, 32).height, sized(open_size, 128, 32).width) == (128, 128)
    assert sized(clip, 128, 32) == clip
    assert sized(replace(open_size, height=96), 128, 32).width == 96
    assert sized(replace(open_size, width=256), 128, 32).height == 256
