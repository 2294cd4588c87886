"""From clips to rows: streaming, resuming, foreign videos, many processes, bad input."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fatezero.clips.video import read_clip, write_frames, write_video
from fatezero.data.manifest import Manifest
from fatezero.errors import UserError
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.metrics import consistency, fidelity, text
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.given_flow import GivenFlow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.options import PICTUREBOOK_CLIP, EvaluateRun, EvaluateVideos, ScoringOptions
from fatezero_eval.scoring import checks, evaluation, footage, rows, scorer, suite, windows
from fatezero_eval.scoring.matching import match_videos
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.set_distances import DISTANCES_OF_SETS
from fatezero_eval.tables import statistics

EVERYTHING_RUNNABLE = (
    "text*",
    "frame*",
    "dir*",
    "warp*",
    "valid*",
    "temporal*",
    "motion*",
    "[pms]s*",
    "mask*",
)


def scores_of(clip, judge, names=EVERYTHING_RUNNABLE, cache=None):
    shared = Networks(flow=Dis(), clip=judge, cache=ArrayCache(cache))
    chosen = [metric for metric in suite.choose(names) if metric.network != "dino"]
    return {s.metric.split("@")[0]: s for s in score(clip, chosen, shared)}


def edited_clip(source, edited, **more):
    return windows.ClipVersions(
        edited=windows.in_memory(edited),
        source=windows.in_memory(source),
        source_prompt="an owl",
        target_prompt="a red owl",
        **more,
    )


def tensor(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255


NEAR = 1e-9  # float64 numbers summed in another order


def test_a_long_clip_in_windows_scores_as_a_whole_one(judge, make_frames):
    source = make_frames(37, 0)
    edited = 255 - source[:, ::-1].copy()
    mask = np.zeros_like(source)
    mask[:, 4:20, 6:30] = 255
    found = scores_of(
        edited_clip(source, edited, mask=windows.in_memory(mask), true_edit=windows.in_memory(source)), judge
    )
    e = torch.from_numpy(judge.images(edited)["projected"])
    words = torch.from_numpy(judge.texts(["an owl", "a red owl"]))
    inside = torch.from_numpy(mask[..., 0] > 0)
    assert found["text_alignment"].value == pytest.approx(text.text_alignment(e, words[1]).item(), rel=NEAR)
    assert found["frame_consistency"].value == pytest.approx(consistency.adjacent(e).item(), rel=NEAR)
    assert found["frame_consistency/all_pairs"].value == pytest.approx(consistency.all_pairs(e).item(), rel=NEAR)
    outside = fidelity.psnr(tensor(edited), tensor(source), ~inside)
    assert found["psnr/outside"].value == pytest.approx(outside.mean().item(), rel=NEAR)
    assert (found["psnr/outside"].defined, found["temporal_flickering"].defined) == (37, 36)
    flicker = 1 - np.abs(np.diff(edited.astype(float), axis=0)).mean() / 255
    assert found["temporal_flickering"].value == pytest.approx(flicker, rel=NEAR)


def test_window_size_changes_nothing(judge, make_frames, monkeypatch):
    source = make_frames(20, 3)
    clip = edited_clip(source, source[::-1].copy())
    wide = scores_of(clip, judge)
    monkeypatch.setattr(footage, "WINDOW", 8)
    assert scores_of(clip, judge) == wide


def test_an_unedited_clip(judge, make_frames):
    source = make_frames(6, 1)
    found = scores_of(edited_clip(source, source.copy(), true_edit=windows.in_memory(source)), judge)
    assert found["motion_fidelity"].value == 0
    assert found["psnr/truth"].value == fidelity.PSNR_CEILING
    assert found["directional_similarity"].value is None
    assert found["directional_similarity"].reason == "the frames or the prompts did not change"
    assert found["directional_similarity"].undefined == 6
    assert found["mask_iou"].reason == "no edit mask is given for this clip"


def test_a_clip_of_one_frame_has_no_motion(judge, make_frames):
    source = make_frames(1, 1)
    found = scores_of(edited_clip(source, 255 - source), judge)
    for name in (
        "frame_consistency",
        "frame_consistency/vbench",
        "warp_error",
        "temporal_flickering",
        "motion_fidelity",
    ):
        assert found[name].value is None, name
        assert "one frame" in found[name].reason
    assert math.isfinite(found["text_alignment"].value)


def test_a_judge_without_projection_has_no_unprojected_consistency(judge, make_frames):
    class NoProjection:
        id, logit_scale, texts = judge.id, judge.logit_scale, judge.texts

        def images(self, frames):
            return {"projected": judge.images(frames)["projected"]}

    found = scores_of(edited_clip(make_frames(4, 1), make_frames(4, 2)), NoProjection())
    assert found["frame_consistency/unprojected"].value is None
    assert "no projection" in found["frame_consistency/unprojected"].reason
    assert found["frame_consistency"].value is not None


def test_black_frames_score_without_surprise(judge, make_frames):
    source = make_frames(4, 1)
    found = scores_of(edited_clip(source, np.zeros_like(source)), judge)
    assert found["frame_consistency"].value == pytest.approx(1, abs=1e-6)
    assert found["warp_error"].value == 0
    assert found["temporal_flickering"].value == 1


def test_given_flow_takes_the_place_of_an_estimate(judge, make_frames):
    source = make_frames(20, 4)
    forward = np.zeros((19, 2, *source.shape[1:3]), np.float32)
    forward[:, 0] = -1
    found = scores_of(edited_clip(source, source, true_flow=GivenFlow(forward, -forward)), judge)
    assert found["warp_error"].value == 0
    assert found["warp_error"].model == "given flow"
    assert found["motion_fidelity"].model == "dis-full"
    assert found["valid_pixels"].value == pytest.approx(39 / 40)
    short = scores_of(edited_clip(source, source, true_flow=GivenFlow(forward[:9], -forward[:9])), judge)
    assert short["warp_error"].value is None
    assert "given flow has 9 pairs" in short["warp_error"].reason
    assert short["motion_fidelity"].value == 0  # which estimates


def test_versions_of_a_clip_must_match(judge, make_frames):
    source = make_frames(20, 0)
    with pytest.raises(UserError, match="differ in length: edited 18, source 20"):
        scores_of(edited_clip(source, source[:18]), judge)
    with pytest.raises(UserError, match="differ in length: edited 16, source 20"):
        scores_of(edited_clip(source, source[:16]), judge)
    with pytest.raises(UserError, match="differ in size: edited 40x30, source 40x32"):
        scores_of(edited_clip(source, source[:, :30]), judge)
    with pytest.raises(UserError, match="no frames"):
        scores_of(edited_clip(source[:0], source[:0]), judge)


def test_embeddings_and_flows_come_from_the_cache(judge, make_frames, tmp_path):
    source = make_frames(6, 0)
    clip = edited_clip(source, 255 - source)
    first = scores_of(clip, judge, cache=tmp_path)

    class Refuses:
        id, logit_scale = judge.id, judge.logit_scale

        def images(self, frames):
            raise AssertionError("encoded again")

        texts = images

    assert scores_of(clip, Refuses(), cache=tmp_path) == first


def config(run, judge_folder, **more):
    return EvaluateRun(run=run, manifest=run.parent.parent / "manifest.jsonl", judge=str(judge_folder), **more)


def test_a_run_folder_becomes_rows(run_folder, tiny_clip):
    result = evaluation.evaluate_run(config(run_folder, tiny_clip))
    assert result.failures == {}
    assert len(result.rows) == 12 * len(suite.DEFAULT)
    assert {row.variant for row in result.rows} == {"full", "no fusion", "source", "no edit"}
    assert rows.read_rows(result.lines) == list(result.rows)
    table = {(row.variant, row.edit, row.metric): row for row in result.rows}
    assert table["full", "fox-1", "psnr/truth@1"].value > table["no fusion", "fox-1", "psnr/truth@1"].value
    assert table["full", "fox-1", "mask_iou@1"].value == pytest.approx(16 * 12 / (16 * 16))
    assert table["no fusion", "fox-1", "mask_iou@1"].reason == "the method wrote no mask"
    assert table["no edit", "fox-1", "psnr/outside@1"].value == fidelity.PSNR_CEILING
    assert table["full", "jeep-1", "frame_consistency@1"].value is None
    swapped = (
        table["source", "fox-1", "frame_accuracy@1"].value,
        table["no edit", "fox-1", "frame_accuracy@1"].value,
    )
    assert sum(swapped) == 1  # what shows the source prompt does not show the target's
    assert table["full", "owl-1", "psnr/truth@1"].clip == "clips/owl"
    assert len(pd.read_parquet(result.table)) == len(result.rows)
    csv = pd.read_csv(result.table.with_suffix(".csv"))
    assert csv["value"].isna().sum() == sum(row.value is None for row in result.rows)


def test_without_a_manifest_truth_is_undefined_not_invented(run_folder, tiny_clip):
    result = evaluation.evaluate_run(EvaluateRun(run=run_folder, judge=str(tiny_clip), metrics=("psnr/truth",)))
    assert {row.value for row in result.rows} == {None}
    assert {row.reason for row in result.rows} == {"the true edit of this clip is not known"}
    own = EvaluateRun(run=run_folder, judge=str(tiny_clip), metrics=("psnr/outside",), edit_mask="own")
    values = {row.variant: row.value for row in evaluation.evaluate_run(own).rows if row.edit == "fox-1"}
    assert values["full"] > 20
    assert values["no fusion"] is None


def test_python_hears_how_far_scoring_is(run_folder, tiny_clip, capfd):
    told = []
    found = evaluation.evaluate_run(
        config(run_folder, tiny_clip, metrics=("psnr/truth",)), progress=lambda *step: told.append(step)
    )
    clips = len({(row.variant, row.edit) for row in found.rows})
    assert [told[0], told[-1]] == [("", 0, clips), ("", clips, clips)]
    assert capfd.readouterr() == ("", "")


def test_a_killed_run_goes_on_and_a_changed_edit_is_scored_again(run_folder, tiny_clip, monkeypatch):
    wanted = config(run_folder, tiny_clip, metrics=("psnr/truth", "text_alignment"))
    before = evaluation.evaluate_run(wanted)
    items = sorted((run_folder / "evaluation" / "items").iterdir())
    assert len(items) == 12
    items[3].write_text(items[3].read_text()[:50])  # half-written by a killed run
    (items[0].parent / ".x.1.partial.json").write_text("{")
    done = []
    original = scorer.keep_rows
    monkeypatch.setattr(scorer, "keep_rows", lambda file, *found: (done.append(file), original(file, *found)))
    assert evaluation.evaluate_run(wanted).rows == before.rows
    assert done == [items[3]]
    frames = run_folder / "full" / "owl-1" / "frames"
    write_frames(frames, np.zeros((3, 32, 40, 3), np.uint8))
    after = evaluation.evaluate_run(wanted)
    assert len(done) == 2
    changed = [a.edit for a, b in zip(after.rows, before.rows, strict=True) if a != b]
    assert set(changed) == {"owl-1"}


def test_one_bad_edit_does_not_lose_the_others(run_folder, tiny_clip):
    shutil.rmtree(run_folder / "full" / "fox-1" / "frames")
    (run_folder / "full" / "owl-1" / "frames" / "00001.png").write_bytes(b"no picture")
    result = evaluation.evaluate_run(config(run_folder, tiny_clip, metrics=("psnr/truth",)))
    assert set(result.failures) == {"full/fox-1/1", "full/owl-1/0"}
    assert "fox-1" in result.failures["full/fox-1/1"]
    assert len(result.rows) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ("text_alignement",)}, "no metric 'text_alignement'; did you mean text_alignment"),
        ({"metrics": ("pick_score",)}, "pick_score cannot run: give --pick"),
        ({"flow": "guess"}, "no flow estimator"),
        ({"judge": PICTUREBOOK_CLIP}, "text_alignment cannot run: give --judge the folder of picturebook-clip"),
        ({"judge": "/nowhere"}, "no CLIP known here"),
        ({"run": Path("/nowhere")}, "no such run folder"),
        ({"manifest": Path("/nowhere.yaml")}, "nowhere.yaml"),
    ],
)
def test_mistakes_are_named(run_folder, tiny_clip, change, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate_run(replace(config(run_folder, tiny_clip), **change))


def test_an_empty_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no finished edit"):
        evaluation.evaluate_run(EvaluateRun(run=tmp_path, metrics=("psnr/truth",)))


def foreign(run_folder, tiny_clip, folder, **more):
    return EvaluateVideos(
        method="theirs",
        videos=folder,
        manifest=run_folder.parent.parent / "manifest.jsonl",
        out=folder.parent / "scores",
        judge=str(tiny_clip),
        metrics=("psnr/truth", "text_alignment"),
        **more,
    )


def test_anyones_videos_are_aligned_and_scored(run_folder, tiny_clip, make_frames, tmp_path):
    folder = tmp_path / "theirs"
    truth = tmp_path / "clips"
    write_frames(folder / "owl-1", read_clip(ClipSpec(path=str(truth / "owl-true"))).frames)
    write_video(folder / "fox-1.mp4", make_frames(7, 1, height=64, width=80), 8)
    write_video(folder / "extra.gif", make_frames(2, 1), 8)
    result = evaluation.evaluate_videos(foreign(run_folder, tiny_clip, folder))
    assert {row.edit for row in result.rows if row.variant == "theirs"} == {"owl-1"}
    truths = [row.value for row in result.rows if row.variant == "theirs" and row.metric == "psnr/truth@1"]
    assert truths == [100]
    assert "80x64, the source 40x32" in result.failures["theirs/fox-1"]
    assert "7 frames, the source 5" in result.failures["theirs/fox-1"]
    assert result.failures["theirs/jeep-1"].startswith("missing")
    assert result.match_report.unused == (folder / "extra.gif",)
    assert "? " in str(result.match_report)
    relaxed = evaluation.evaluate_videos(foreign(run_folder, tiny_clip, folder, resize=True, trim=True))
    fox = [row for row in relaxed.rows if row.variant == "theirs" and row.edit == "fox-1"]
    assert fox
    assert "stretched from 80x64, the source 40x32" in fox[0].notes
    assert "the first 5 of both" in fox[0].notes
    write_video(folder / "owl-1.gif", make_frames(3, 1), 8)
    shutil.rmtree(folder / "owl-1")
    write_video(folder / "owl-1.mp4", make_frames(3, 1), 8)
    with pytest.raises(UserError, match=r"ambiguous: owl-1\.gif and owl-1\.mp4"):
        evaluation.evaluate_videos(foreign(run_folder, tiny_clip, folder))


def test_of_a_runs_own_folder_the_lossless_frames_are_scored(run_folder, tiny_clip, make_frames):
    """Not its mp4, whose loss would be scored with the edit."""
    write_video(run_folder / "full" / "fox-1" / "edited.mp4", make_frames(5, 1, height=32, width=40), 8)
    evaluated = evaluation.evaluate_run(config(run_folder, tiny_clip, metrics=("psnr/truth",)))
    own = {row.value for row in evaluated.rows if (row.variant, row.edit) == ("full", "fox-1")}
    folder = run_folder / "full"
    again = evaluation.evaluate_videos(
        replace(foreign(run_folder, tiny_clip, folder), metrics=("psnr/truth",), out=run_folder.parent / "scores")
    )
    assert {row.value for row in again.rows if (row.variant, row.edit) == ("theirs", "fox-1")} == own
    videos = {match.edit: match.video for match in again.match_report.matches}
    assert videos["fox-1"] == folder / "fox-1" / "frames"


def test_videos_at_other_times_than_the_source_are_noted(make_frames, tmp_path):
    times = (0.0, 0.1, 0.15, 0.5, 0.9, 1.0)
    frames = make_frames(5, 1, height=48, width=64)
    write_video(tmp_path / "clip.webp", frames, times)
    clip = ClipSpec(path=str(tmp_path / "clip.webp"))
    names = ("same", "mean", "late")
    requests = tuple(EditRequest(id=name, clip=clip, source_prompt="a", target_prompt="b") for name in names)
    for name, timing in zip(names, (times, 5.0, (0.0, 0.1, 0.15, 0.6, 0.9, 1.0)), strict=True):
        write_video(tmp_path / "theirs" / f"{name}.mp4", frames, timing)
    report = match_videos(Manifest(tmp_path / "m", "m", requests, {}, {}), tmp_path / "theirs")
    noted = {match.edit: match.notes for match in report.matches}
    assert noted["same"] == ()
    assert noted["mean"] == (
        "5 frames a second on average, the source 5, at other times (frames are compared by index)",
    )
    assert len(noted["late"]) == 1


def test_a_folder_above_the_videos_is_told_where_they_are(make_frames, tmp_path):
    frames, clip = make_frames(2, 1), tmp_path / "data" / "clips" / "cow"
    write_frames(clip, frames)
    write_frames(tmp_path / "output" / "ours" / "clips" / "cow", frames)
    (request,) = (EditRequest(id="a", clip=ClipSpec(path=str(clip)), source_prompt="a", target_prompt="b"),)
    manifest = Manifest(tmp_path / "m", "m", (request,), {}, {"a": ("clips/cow",)})
    for above in (tmp_path, tmp_path / "output"):
        with pytest.raises(UserError, match="output/ours holds 1 of 1: give that folder as --videos"):
            match_videos(manifest, above)
    (match,) = match_videos(manifest, tmp_path / "data").matches
    assert match.problem.startswith("it is the source clip itself")
    (match,) = match_videos(manifest, tmp_path / "output" / "ours").matches
    assert not match.problem


def test_damaged_rows_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"clip": "a"}\n')
    with pytest.raises(UserError, match="line 1: not a row"):
        rows.read_rows(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="run fatezero evaluate first"):
        rows.read_rows(tmp_path / "none.jsonl")


def test_every_metric_says_whether_it_can_run(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    report = {
        name: (able, remedy) for name, able, remedy in checks.runnable_metrics(ScoringOptions(judge=str(tiny_clip)))
    }
    assert [*report] == [*(metric.id for metric in suite.METRICS), *DISTANCES_OF_SETS]
    assert report["text_alignment@1"] == (True, "")
    assert "--pick" in report["pick_score@1"][1]
    assert "alexnet" in report["lpips/truth@1"][1]
    assert all(remedy for able, remedy in report.values() if not able)


def test_metric_names_are_unique_and_the_default_suite_exists():
    names = [metric.name for metric in suite.METRICS]
    assert len(set(names)) == len(names)
    assert [metric.name for metric in suite.choose()] == [name for name in names if name in suite.DEFAULT]
    assert set(suite.DEFAULT) <= set(names)
    for metric in suite.METRICS:
        assert sum(way is not None for way in (metric.of_clip, metric.of_window, metric.of_answers)) == 1
        assert (metric.asks is None) == (metric.of_answers is None)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_gives_the_same_rows(run_folder, tiny_clip, processes):
    (run_folder / "full" / "fox-1" / "frames" / "00001.png").write_bytes(b"no picture")  # a failure travels too
    alone = evaluation.evaluate_run(config(run_folder, tiny_clip, out=run_folder / "one"))
    many = config(run_folder, tiny_clip, out=run_folder / f"of-{processes}", processes=processes)
    together = evaluation.evaluate_run(many)
    assert together.rows == alone.rows
    assert together.lines.read_bytes() == alone.lines.read_bytes()
    assert statistics.scores(together.rows) == statistics.scores(alone.rows)
    assert list(alone.failures) == ["full/fox-1/1"]
    assert together.failures == alone.failures
