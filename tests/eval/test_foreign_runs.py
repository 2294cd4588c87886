"""Run folders that are damaged, that a killed process left, or that came from somebody else."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import write_frames
from fatezero.commands.evaluate import evaluate
from fatezero.commands.leaderboard import leaderboard
from fatezero.commands.report import report
from fatezero.commands.sheet import sheet
from fatezero.config import MethodConfig
from fatezero.data.files import content_digest
from fatezero.data.layout import inside, reserved_variant_name, visible
from fatezero.errors import UserError
from fatezero.runs.variants import make_variants
from fatezero_eval import file_names, tracking
from fatezero_eval.networks import given_flow
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.given_flow import read_flow
from fatezero_eval.options import EvaluateRun, ScoringOptions
from fatezero_eval.pages.run_page import write_report
from fatezero_eval.scoring.evaluation import evaluate_run
from fatezero_eval.scoring.provenance import read_provenance
from fatezero_eval.scoring.rows import BASELINES, Row, read_rows, write_rows
from fatezero_eval.scoring.scorer import load_scorer
from fatezero_eval.scoring.scoring_jobs import Truths, finished_jobs
from fatezero_eval.tables.leaderboard_files import write_leaderboard

METRICS = ("psnr/truth",)
OWL = Path("full", "owl-1")


def manifest_of(run: Path) -> Path:
    return run.parents[1] / "manifest.jsonl"


def score(run: Path, **more: Any) -> Any:
    return evaluate_run(EvaluateRun(**{"run": run, "manifest": manifest_of(run), "metrics": METRICS, **more}))


def restate(meta: Path, **changed: Any) -> None:
    """Change what a record says, its clip's path by `clip`."""
    values = json.loads(meta.read_text(encoding="utf-8"))
    if "clip" in changed:
        values["request"]["clip"]["path"] = str(changed.pop("clip"))
    meta.write_text(json.dumps(values | changed), encoding="utf-8")


# leftovers


@pytest.mark.slow
def test_hidden_names_are_no_part_of_a_run(run_folder: Path) -> None:
    before = score(run_folder).rows
    for left in (".fox-1.123.partial", ".fox-1.old", ".0123456789abcdef.partial"):
        shutil.copytree(run_folder / OWL, run_folder / "full" / left)
    (run_folder / "full" / ".fox-1.old" / "meta.json").write_text('{"request": {', encoding="utf-8")
    shutil.copytree(run_folder / "full", run_folder / ".full.1.partial")
    (run_folder / ".full.1.partial" / "plan.json").write_text("[", encoding="utf-8")
    (run_folder / ".plot.png").write_bytes(b"")
    (run_folder / OWL / ".attention_0_owl.png").write_bytes(b"")
    assert score(run_folder).rows == before
    assert not write_report(run_folder, manifest_of(run_folder)).problems
    board = write_leaderboard([run_folder], run_folder)
    assert not board.problems
    assert [method.variant for method in board.tables[0].methods] == ["full", "no fusion", *BASELINES]
    assert "2 variants" in tracking.track_with_lightning(run_folder, "csv")
    assert visible(run_folder, "*.png") == []


def test_an_evaluation_clears_what_killed_ones_left(run_folder: Path) -> None:
    out = run_folder / "evaluation"
    for folder in (out, out / "items", out / "truth", out / "cache" / "ab"):
        (folder / ".0123.partial").mkdir(parents=True)
    score(run_folder)
    assert not list(out.rglob(".*"))


def test_a_leftover_that_is_a_link_takes_nothing_from_elsewhere(run_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "old" / "thesis"
    mine.mkdir(parents=True)
    (run_folder / "evaluation").mkdir()
    (run_folder / "evaluation" / ".0123.partial").symlink_to(tmp_path / "mine")
    score(run_folder)
    assert mine.is_dir()
    assert not (run_folder / "evaluation" / "thesis").exists()


# one item's failure costs no other


def as_text(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text, encoding="utf-8")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": as_text(""),
    "half": as_text('{"request": {"id": "ow'),
    "a list": as_text("[1, 2]"),
    "a number": as_text("7"),
    "null": as_text("null"),
    "no request": as_text("{}"),
    "a request of another type": as_text('{"request": [1]}'),
    "a number that is none": lambda path: restate(path, frames=float("nan")),
    "an infinite one": lambda path: path.write_text(
        path.read_text(encoding="utf-8").replace('"request":', '"frames": 1e999, "request":', 1), encoding="utf-8"
    ),
    "times of another type": lambda path: restate(path, timings={"all": "long"}),
    "frames of another type": lambda path: restate(path, frames=[3]),
    "half a character": lambda path: path.write_text(
        path.read_text(encoding="utf-8").replace("an owl", "an \\ud800"), encoding="utf-8"
    ),
    "nested": as_text("[" * 5000 + "]" * 5000),
    "not UTF-8": lambda path: path.write_bytes(b'{"request": "\xff\xfe"}'),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nothing that is readable": lambda path: (path.unlink(), path.symlink_to("/proc/self/mem")),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_costs_no_other_result(
    run_folder: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](run_folder / OWL / "meta.json")
    known = manifest_of(run_folder)
    assert evaluate(run_folder, options=ScoringOptions(metrics=METRICS), manifest=known) == 1
    said = capsys.readouterr().err
    assert said.startswith("fatezero: full/owl-1: ")
    assert said.count("\n") == 1
    rows = read_rows(run_folder / "evaluation" / "rows.jsonl")
    assert {(row.variant, row.edit) for row in rows if row.variant == "full"} == {("full", "fox-1"), ("full", "jeep-1")}
    assert report(run_folder, manifest=known) == 1
    assert "meta.json" in capsys.readouterr().err
    assert sheet(run_folder, manifest=known, out=tmp_path / "sheet.png", variant="full") == 1
    assert (tmp_path / "sheet.png").is_file()
    leaderboard((run_folder,))
    assert (run_folder / "leaderboard.md").is_file()


@pytest.mark.slow
def test_clips_too_small_for_a_metric_lose_that_score(run_folder: Path) -> None:
    for name in ("fox-1", "fox-1-tiny"):
        shutil.copytree(run_folder / "full" / "fox-1", run_folder / "tiny" / name)
    shutil.rmtree(run_folder / "tiny" / "fox-1")
    small = np.zeros((3, 4, 9, 3), np.uint8)
    write_frames(run_folder / "clip", small)
    write_frames(run_folder / "tiny" / "fox-1-tiny" / "frames", small)
    shutil.rmtree(run_folder / "tiny" / "fox-1-tiny" / "masks")
    meta = run_folder / "tiny" / "fox-1-tiny" / "meta.json"
    values = json.loads(meta.read_text(encoding="utf-8"))
    values["request"] |= {"id": "tiny", "clip": values["request"]["clip"] | {"path": str(run_folder / "clip")}}
    meta.write_text(json.dumps(values), encoding="utf-8")
    result = score(run_folder, metrics=("motion_fidelity", "warp_error", "temporal_flickering"))
    assert result.failures == {
        "tiny/tiny/1, warp_error, motion_fidelity": "DIS estimates no flow of frames below 8x12 pixels, and these are "
        "9x4: use --flow farneback."
    }
    values = {row.metric: row.value for row in result.rows if row.variant == "tiny"}
    assert values == {"warp_error@1": None, "temporal_flickering@1": 1, "motion_fidelity@1": None}
    assert {row.edit for row in result.rows if row.variant == "full"} == {"owl-1", "fox-1", "jeep-1"}


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["", "\n", '{"value": 1}\n', "first line alone"])
def test_damaged_kept_rows_are_scored_again(run_folder: Path, kept: str) -> None:
    before = score(run_folder, metrics=("psnr/truth", "mse/truth")).rows
    for item in (run_folder / "evaluation" / "items").iterdir():
        first = item.read_text(encoding="utf-8").split("\n")[0] + "\n"
        item.write_text(first if kept == "first line alone" else kept, encoding="utf-8")
    assert score(run_folder, metrics=("psnr/truth", "mse/truth")).rows == before


def test_lines_end_with_lines_alone(run_folder: Path) -> None:
    """Other characters end lines elsewhere, and may stand in a category."""
    for meta in run_folder.glob("*/owl-1/meta.json"):
        values = json.loads(meta.read_text(encoding="utf-8"))
        values["request"]["category"] = "a\u2028b\x85c"
        meta.write_text(json.dumps(values), encoding="utf-8")
    result = score(run_folder)
    assert not result.failures
    assert {row.category for row in read_rows(result.lines) if row.edit == "owl-1"} == {"a\u2028b\x85c"}


def test_what_changes_while_it_is_scored_is_a_failure(run_folder: Path, tmp_path: Path) -> None:
    scorer = load_scorer(ScoringOptions(metrics=METRICS))
    job = finished_jobs(run_folder, Truths(None, None, tmp_path)).jobs[0]
    scorer([(job, tmp_path / "another fingerprint.json")])
    assert "changed while it was scored" in (tmp_path / "another fingerprint.failed").read_text(encoding="utf-8")
    assert not (tmp_path / "another fingerprint.json").exists()


def test_two_results_of_one_name_are_told_apart(run_folder: Path) -> None:
    shutil.copytree(run_folder / OWL, run_folder / "full" / "zebra")
    result = score(run_folder)
    assert list(result.failures) == ["full/zebra"]
    assert "owl-1" in result.failures["full/zebra"]
    (run_folder / "no fusion").rename(run_folder / "source")  # as a baseline is called
    assert {"source/owl-1", "source/fox-1", "source/jeep-1"} <= set(score(run_folder).failures)


@pytest.mark.slow
def test_two_evaluations_at_once_agree(run_folder: Path) -> None:
    sets = (("psnr/truth",), ("mse/truth",), ("psnr/truth", "mse/truth"), ("psnr/outside",))
    with ThreadPoolExecutor(len(sets)) as pool:
        results = list(pool.map(lambda metrics: score(run_folder, metrics=metrics), sets))
    assert [result.failures for result in results] == [{}] * len(sets)
    made = read_provenance(run_folder / "evaluation")  # refuses rows of another evaluation
    assert {row.metric for row in read_rows(run_folder / "evaluation" / "rows.jsonl")} == {*made.metrics}


def test_a_run_that_cannot_be_read_costs_no_other_in_a_table(run_folder: Path, tmp_path: Path) -> None:
    score(run_folder)
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    (other / "evaluation" / "provenance.json").write_text('{"rows": [1e999]}', encoding="utf-8")
    board = write_leaderboard([run_folder, other], tmp_path / "out")
    assert len(board.tables) == 1
    (problem,) = board.problems
    assert "provenance.json" in problem
    assert leaderboard((run_folder, other), out=tmp_path / "out") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"name": ["x"]},
        {"variants": 3},
        {"variants": {"../../elsewhere": {}}},
        {"variants": {"full": {"settings": 3}}},
        {"reference": ["full"], "variants": {"full": {}}},
        {"manifest": {"path": "x"}},
    ],
)
def test_an_odd_experiment_is_a_problem_alone(run_folder: Path, values: dict[str, Any]) -> None:
    score(run_folder)
    (run_folder / "experiment.json").write_text(json.dumps(values), encoding="utf-8")
    for problems in (
        write_report(run_folder, manifest_of(run_folder)).problems,
        write_leaderboard([run_folder], run_folder).problems,
    ):
        (problem,) = problems
        assert "experiment.json: not readable as an experiment" in problem


# a run from someone else


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"clip": "http://127.0.0.1:9/secret.mp4"}, "not fetched"),
        ({"clip": "file:///etc"}, "not fetched"),
        ({"clip": "s3://bucket/secret.mp4", "clip_digest": "missing"}, "not fetched"),
        ({"clip_digest": None}, "give --manifest"),
        ({"clip_digest": "0" * 128}, "not the one that was edited"),
        ({"clip": "/nowhere/at/all.mp4", "clip_digest": "missing"}, "not the one that was edited"),
        ({"clip": "/dev/zero", "clip_digest": "no regular file"}, "not the one that was edited"),
        ({"clip": "x" * 5000}, "not the one that was edited"),
        ({"clip": "a\0b"}, "not the one that was edited"),
    ],
)
def test_a_record_opens_no_file_that_it_merely_names(run_folder: Path, record: dict[str, Any], why: str) -> None:
    for meta in run_folder.glob("*/owl-1/meta.json"):
        restate(meta, **record)
    result = score(run_folder, manifest=None)
    assert set(result.failures) == {"full/owl-1/0", "no fusion/owl-1/0"}
    assert why in result.failures["full/owl-1/0"]
    assert {row.edit for row in result.rows} == {"fox-1", "jeep-1"}
    written = write_report(run_folder)
    assert sum(why in problem for problem in written.problems) == 2
    page = written.path.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]
    owl = next(edit for edit in json.loads(page)["edits"] if edit["id"] == "owl-1")
    source, *variants = owl["panels"]
    assert why in source["problem"]
    assert "tile" not in source
    assert [panel["tile"] for panel in variants] == [0, 2]  # what lies in the run is shown, masks between
    assert not any("curves" in panel for panel in owl["panels"])


@pytest.mark.slow
def test_a_clip_may_be_read_where_the_user_or_its_content_vouches_for_it(run_folder: Path, tmp_path: Path) -> None:
    assert not score(run_folder, manifest=None).failures  # its content is stated
    for meta in run_folder.glob("*/*/meta.json"):
        restate(meta, clip_digest=None)
    assert not score(run_folder).failures  # the user's manifest names it
    for meta in run_folder.glob("*/*/meta.json"):
        clip = Path(json.loads(meta.read_text(encoding="utf-8"))["request"]["clip"]["path"])
        restate(meta, clip=f"/another/machine/clips/{clip.name}")
    assert not score(run_folder).failures  # under another path
    shutil.copytree(tmp_path / "clips", run_folder / "clips")
    for meta in run_folder.glob("*/*/meta.json"):
        clip = Path(json.loads(meta.read_text(encoding="utf-8"))["request"]["clip"]["path"])
        restate(meta, clip=run_folder / "clips" / clip.name)
    assert not score(run_folder, manifest=None).failures  # it lies in the run


def test_the_truth_of_another_clip_is_not_taken_for_an_edits_own(run_folder: Path) -> None:
    lines = [json.loads(line) for line in manifest_of(run_folder).read_text(encoding="utf-8").splitlines()]
    clips = {line["id"]: line["clip"] for line in lines}
    (owl,) = (line for line in lines if line["id"] == "owl-1")
    owl["clip"] = clips["fox-1"]
    other = manifest_of(run_folder).with_name("other.jsonl")
    other.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    found = score(run_folder, manifest=other)
    assert set(found.failures) == {"full/owl-1/0", "no fusion/owl-1/0"}
    assert all("the manifest's edit of that id is of" in reason for reason in found.failures.values())
    assert {row.edit for row in found.rows} == {"fox-1", "jeep-1"}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["frames", "frames/00001.png", "masks", "masks/00000.png", "meta.json"])
def test_links_do_not_lead_out_of_a_run(run_folder: Path, tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    shutil.move(run_folder / OWL / what, secret)
    (run_folder / OWL / what).symlink_to(secret)
    result = score(run_folder)
    assert "leads out of" in result.failures["full/owl-1"]
    assert any("leads out of" in problem for problem in write_report(run_folder, manifest_of(run_folder)).problems)


def test_a_link_to_a_result_elsewhere_is_no_result(run_folder: Path, tmp_path: Path) -> None:
    shutil.move(run_folder / OWL, tmp_path / "owl-1")
    (run_folder / OWL).symlink_to(tmp_path / "owl-1")
    shutil.move(run_folder / "no fusion", tmp_path / "variant")
    (run_folder / "no fusion").symlink_to(tmp_path / "variant")
    assert len(score(run_folder).failures) == 4


@pytest.mark.parametrize("name", ["plan.json", "cat-1.failed.json"])
def test_links_of_small_files_are_not_followed_out(run_folder: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"cat-1": "x", "reason": "the secret"}', encoding="utf-8")
    (run_folder / "full" / "plan.json").write_text('{"cat-1": "x"}', encoding="utf-8")
    (run_folder / "full" / name).unlink(missing_ok=True)
    (run_folder / "full" / name).symlink_to(secret)
    written = write_report(run_folder, manifest_of(run_folder))
    assert any("leads out of" in problem for problem in written.problems)
    assert "the secret" not in written.path.read_text(encoding="utf-8")


def test_a_plan_names_nothing_outside(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.failed.json").write_text('{"reason": "the secret"}', encoding="utf-8")
    (run_folder / "full" / "plan.json").write_text('{"../../../x": "d"}', encoding="utf-8")
    written = write_report(run_folder, manifest_of(run_folder))
    assert "the secret" not in written.path.read_text(encoding="utf-8")
    assert any("names no result" in problem for problem in written.problems)


def test_pictures_and_reasons_of_elsewhere_are_not_shown(run_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 64)).save(tmp_path / "secret.png")
    (run_folder / OWL / "attention_0_owl.png").symlink_to(tmp_path / "secret.png")
    Image.new("RGB", (40, 64)).save(run_folder / OWL / "attention_1_fox.png", format="BMP")
    result = score(run_folder)
    write_rows(run_folder / "evaluation", [row for row in result.rows if row.variant != "full"])
    (tmp_path / "secret").write_text("the secret", encoding="utf-8")
    (run_folder / "evaluation" / "items" / "x.failed").symlink_to(tmp_path / "secret")
    written = write_report(run_folder, manifest_of(run_folder))
    assert sum("attention_0_owl.png leads out" in problem for problem in written.problems) == 1
    assert sum("attention_1_fox.png: not readable" in problem for problem in written.problems) == 1
    assert "the secret" not in written.path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_manifest_that_a_run_names_is_believed_by_its_content(run_folder: Path, tmp_path: Path) -> None:
    known = manifest_of(run_folder)

    def said(**stated: str) -> tuple[int, tuple[str, ...]]:
        (run_folder / "experiment.json").write_text(json.dumps(stated), encoding="utf-8")
        written = write_report(run_folder)
        return written.path.read_text(encoding="utf-8").count('"kind":"truth"'), written.problems

    assert said(manifest=str(known), manifest_digest=content_digest(known)) == (3, ())
    for digest in ("", "0" * 128, "missing"):
        truths, problems = said(manifest=str(known), manifest_digest=digest)
        assert truths == 0
        assert "another than the run was made with" in problems[0]
    folder = tmp_path / "folder"  # whose digest is that of no file at all
    (folder / "JPEGImages").mkdir(parents=True)
    assert said(manifest=str(folder), manifest_digest="")[0] == 0
    for gone in ("http://127.0.0.1:9/manifest.yaml", "file:///etc", "x" * 5000, "/dev/zero"):
        assert said(manifest=gone, manifest_digest="missing")[0] == 0
    own = run_folder / "bench"
    shutil.copytree(tmp_path / "clips", own / "clips")
    shutil.copy(known, own / "manifest.jsonl")
    assert said(manifest=str(own / "manifest.jsonl")) == (3, ())
    shutil.rmtree(own / "clips" / "owl-true")
    (own / "clips" / "owl-true").symlink_to(tmp_path / "clips" / "owl-true")
    truths, problems = said(manifest=str(own / "manifest.jsonl"))
    assert truths == 2
    assert "leads out of" in problems[0]


def test_an_output_folder_that_leads_out_of_the_run_is_not_written(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (run_folder / "evaluation").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="leads out of"):
        score(run_folder)
    assert not list((tmp_path / "mine").iterdir())


def bomb(path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    array = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("forward", "backward"):
            archive.writestr(f"{name}.npy", array)


@pytest.mark.parametrize("shape", ["(100000, 2, 100000, 100000)", "(3, 2, 16, 16)", "(-1, 2, 16, 16)", "'x'"])
def test_a_flow_file_is_read_within_bounds(tmp_path: Path, shape: str) -> None:
    bomb(tmp_path / "flow.npz", shape)
    with pytest.raises(UserError, match=r"flow\.npz: not a flow file"):
        read_flow(tmp_path / "flow.npz")


def test_a_flow_file_of_zeros_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_flow, "MAX_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "flow.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("forward.npy", bytes(2**21))
    with pytest.raises(UserError, match="bytes, more than"):
        read_flow(tmp_path / "flow.npz")


def test_a_pipe_is_no_flow_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "flow.npz")
    with pytest.raises(UserError, match="it is no file"):
        read_flow(tmp_path / "flow.npz")


# names


def test_a_variant_is_not_called_as_a_runs_own_file() -> None:
    own = [
        *("index.html", "Index.HTML", "leaderboard.md", "differences.csv", "EVALUATION", "dataset", "wandb", "csv"),
        *("tensorboard", "results.parquet", "experiment.json", "plot.png", file_names.PAGE, *BASELINES),
        *(f"{file_names.LEADERBOARD}.html", f"{file_names.DIFFERENCES}.json"),
    ]
    assert all(map(reserved_variant_name, own))
    assert not any(map(reserved_variant_name, ("full", "no_fusion", "csv2", "leaderboard", "index")))


def test_a_path_lies_inside_or_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "a").mkdir(parents=True)
    (run / "loop").symlink_to(run / "loop")
    (run / "b").symlink_to(run / "a")  # a link within the run is its owner's
    assert inside(run, run / "b") == run / "b"
    for path in (run / ".." / "x", run / "loop", tmp_path):
        with pytest.raises(UserError, match="leads out of"):
            inside(run, path)


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    row = Row(
        clip="=cmd|' /C calc'!A0", edit="-x", category="@sum", variant="+1", seed=0, metric="psnr/truth@1", value=-1.0,
        defined=1, undefined=0, reason="", model="",
    )  # fmt: skip
    write_rows(tmp_path, [row])
    cells = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    assert cells[:4] == ["'=cmd|' /C calc'!A0", "'-x", "'@sum", "'+1"]
    assert "-1.0" in cells
    assert read_rows(tmp_path / "rows.jsonl") == [row]


def test_variants_that_a_disk_may_not_tell_apart_are_refused() -> None:
    for names in (("full", "FULL"), ("full", "\uff46\uff55\uff4c\uff4c")):
        with pytest.raises(UserError, match="would share the folder"):
            make_variants({name: {} for name in names}, {}, MethodConfig())


# paths elsewhere


@pytest.mark.slow
def test_paths_may_start_from_another_folder_or_a_store(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))
    (tmp_path / "lists").mkdir()
    moved = manifest_of(run_folder).rename(tmp_path / "lists" / "manifest.jsonl")
    before = score(run_folder, manifest=moved, root=str(tmp_path))
    assert not before.failures
    assert any(row.value is not None for row in before.rows)
    assert not write_report(run_folder, moved, None, str(tmp_path)).problems
    for meta in run_folder.glob("*/*/meta.json"):
        clip = Path(json.loads(meta.read_text(encoding="utf-8"))["request"]["clip"]["path"])
        restate(meta, clip=f"file://{clip}", clip_digest=None)
    with pytest.raises(UserError, match=r"(?s)no result of it can be scored.*not fetched"):
        score(run_folder, manifest=None)
    assert not (tmp_path / "home").exists()
    fetched = score(run_folder, manifest=moved, root=f"file://{tmp_path}")  # which names the same addresses
    assert not fetched.failures
    assert [row.value for row in fetched.rows] == [row.value for row in before.rows]


def test_a_cache_that_somebody_filled_is_read_within_bounds(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    kept = {"x": np.ones(3, np.float32)}
    for key, spoil in {
        "aa": lambda path: bomb(path, "(100000, 2, 100000, 100000)"),
        "bb": os.mkfifo,
        "cc": lambda path: path.write_bytes(b"PK\x03\x04"),
    }.items():
        path = tmp_path / key / f"{key}.npz"
        path.parent.mkdir()
        spoil(path)
        assert cache.get(key, lambda: kept) is kept
        assert np.array_equal(cache.get(key, dict)["x"], kept["x"])  # it took the damaged one's place


def test_options_of_foreign_videos_are_not_passed_over(run_folder: Path) -> None:
    for beside in ({"method": "theirs"}, {"videos": run_folder}, {"resize": True}, {"trim": True}):
        with pytest.raises(UserError, match="was given beside a run folder"):
            evaluate(run_folder, options=ScoringOptions(metrics=METRICS), **beside)
    with pytest.raises(UserError, match="at least 1"):
        ScoringOptions(processes=0)
