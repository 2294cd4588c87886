"""Joining runs into tables: what may stand together, what is written, and bad input."""

import csv
import json
import re
from dataclasses import asdict, replace

import pytest

from fatezero.data.files import content_digest
from fatezero.errors import UserError
from fatezero_eval.options import EvaluateRun, EvaluateVideos
from fatezero_eval.scoring import evaluation
from fatezero_eval.scoring.provenance import Provenance, read_provenance, write_provenance
from fatezero_eval.scoring.rows import Row, write_rows
from fatezero_eval.tables.leaderboard_files import write_leaderboard
from fatezero_eval.tables.scored_runs import Cost

PSNR, WARP = "psnr/truth@1", "warp_error@1"
CATEGORIES = ("style", "shape")
CLIPS = 8

MADE = Provenance(
    rows="",
    manifest="bench",
    manifest_digest="0123456789",
    edits={f"edit-{clip}": f"digest-{clip}" for clip in range(CLIPS)},
    models={"flow": "dis-full", "clip": "picturebook-clip:18fb4310"},
    edit_mask="given",
    metrics=(PSNR, WARP),
    device="cpu",
    versions={"torch": "2.5"},
)
META = {
    "config": {"steps": 50},
    "runtime": {"device": "cpu"},
    "checkpoint": {"name": "picturebook", "digest": "34a567d2ffff"},
    "versions": {"torch": "2.5"},
    "frames": 8,
    "timings": {"inversion": 10.0, "editing": 14.0},
    "peak_memory_bytes": 2_000_000,
    "kept_bytes": {"latents": 300, "attention": 700},
}


def run_of(folder, variants, made=MADE, *, metas=True, notes=""):
    """An evaluated run: each variant's PSNR lies `gain` above the clip's own, its warp error below."""
    rows = []
    for variant, gain in {**variants, "source": 0.0, "no edit": 0.0}.items():
        for clip in range(CLIPS):
            known = {"clip": f"clips/{clip}", "edit": f"edit-{clip}", "category": CATEGORIES[clip % 2], "seed": 0}
            known |= {"defined": 8, "undefined": 0, "reason": "", "model": "", "variant": variant, "notes": notes}
            value = None if variant == "source" else 20.0 + clip + gain + 0.1 * (clip % 3) * (gain != 0)
            rows += [Row(**known, metric=PSNR, value=value), Row(**known, metric=WARP, value=(5 - gain) / 1000)]
            if metas and variant in variants:
                path = folder / variant / f"edit-{clip}" / "meta.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(META | {"timings": {"editing": 8.0 * (clip + 1)}}))
    out = folder / "evaluation" if metas else folder
    lines, _ = write_rows(out, rows)
    write_provenance(out, replace(made, rows=content_digest(lines)))
    return folder


def value_of(table, variant, metric=PSNR, category=""):
    (score,) = [s for s in table.scores if (s.variant, s.metric, s.category) == (variant, metric, category)]
    return score.interval.value


def test_a_run_and_someone_elses_videos_share_a_table(tmp_path):
    ours = run_of(tmp_path / "ours", {"full": 3.0, "no_fusion": 1.0})
    theirs = run_of(tmp_path / "theirs", {"tokenflow": 2.0}, metas=False, notes="stretched")
    board = write_leaderboard([ours, theirs], tmp_path / "out", "full")
    (table,) = board.tables
    assert [method.variant for method in table.methods] == ["full", "no_fusion", "tokenflow", "source", "no edit"]
    assert {v: table.ranks[v, PSNR, ""] for v in ("full", "no_fusion", "tokenflow")} == {
        "full": 1,
        "tokenflow": 2,
        "no_fusion": 3,
    }
    assert table.ranks["full", WARP, ""] == 1
    assert value_of(table, "no edit") == 20 + 3.5
    full, _, tokenflow, *_ = table.methods
    assert full.cost == Cost(4.5, 2_000_000, 1000.0)
    assert full.checkpoints == ("picturebook:34a567d2",)
    assert len(full.configurations) == 1
    assert tokenflow.cost == Cost()
    assert tokenflow.notes == ("stretched (8 edits)",)
    (gain,) = [d for d in table.differences if (d.variant, d.metric, d.category) == ("no_fusion", PSNR, "")]
    assert gain.interval.value == pytest.approx(-2.0)
    assert gain.p_value == pytest.approx(2 / 2**CLIPS)
    assert table.corrected[table.differences.index(gain)] == pytest.approx(4 / 2**CLIPS)  # of two variants


def test_the_files_say_the_same(tmp_path):
    run = run_of(tmp_path / "run", {"full": 3.0, "no_fusion": 1.0})
    (table,) = write_leaderboard([run], run, "full").tables
    with (run / "leaderboard.csv").open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == len(table.scores) == 4 * 2 * 3
    first = records[0]
    score = table.scores[0]
    assert (first["variant"], first["metric"], first["category"]) == ("full", PSNR, "")
    assert float(first["value"]) == score.interval.value
    assert (float(first["low"]), float(first["high"])) == (score.interval.low, score.interval.high)
    assert (first["rank"], first["direction"], first["clips"], first["seconds_per_frame"]) == ("1", "1", "8", "4.5")
    (saved,) = json.loads((run / "leaderboard.json").read_text())
    assert saved["scores"][0]["value"] == score.interval.value
    assert saved["scores"][0]["rank"] == 1
    assert saved["evaluation"] == json.loads(json.dumps(asdict(table.provenance)))
    markdown = (run / "leaderboard.md").read_text()
    assert "| full (reference) | 26.59 #1 | 2 #1 | 4.5 | 2 MB | 0.001 MB |" in markdown
    assert "warp_error@1 ↓ (x1000)" in markdown
    assert "| style |" in markdown.replace("shape | ", "")
    differences = json.loads((run / "differences.json").read_text())
    assert {d["variant"] for d in differences} == {"no_fusion", "source", "no edit"}
    assert "| no_fusion | worse | -2 [-2, -2] |" in (run / "differences.md").read_text()
    write_leaderboard([run], run)
    assert not list(run.glob("differences.*"))


def test_few_clips_are_not_ranked(tmp_path):
    run = run_of(tmp_path / "run", {"full": 3.0})
    (table,) = write_leaderboard([run], run).tables
    assert ("full", PSNR, "") in table.ranks
    assert ("full", PSNR, "style") not in table.ranks
    (saved,) = json.loads((run / "leaderboard.json").read_text())
    style = next(s for s in saved["scores"] if s["category"] == "style" and s["variant"] == "full")
    assert (style["low"], style["high"], style["rank"]) == (None, None, None)
    assert style["value"] is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"manifest": "other", "manifest_digest": "ffff"}, "another manifest: bench (01234567) against other (ffff)"),
        ({"models": {"clip": "ViT-B-32/openai"}}, "another clip model: picturebook-clip:18fb4310 against ViT-B-32"),
        ({"models": {"flow": "farneback"}}, "another flow model"),
        ({"edit_mask": "own"}, "another edit mask: given against own"),
        ({"edits": {"edit-1": "changed"}}, "other frames, prompts or category of 1 edits of the same id, among them"),
        ({"edits": {"elsewhere": "x"}}, "no edit in common"),
    ],
)
def test_what_is_not_comparable_gets_a_table_of_its_own(tmp_path, change, reason):
    one = run_of(tmp_path / "one", {"full": 3.0})
    other = run_of(tmp_path / "other", {"theirs": 9.0}, replace(MADE, **change))
    third = run_of(tmp_path / "third", {"ours": 4.0}, replace(MADE, models={}))  # it used no model at all
    board = write_leaderboard([one, other, third], tmp_path / "out")
    first, second = board.tables
    assert [method.variant for method in first.methods] == ["full", "ours", "source", "no edit"]
    assert [method.variant for method in second.methods] == ["theirs", "source", "no edit"]
    assert second.reason.startswith(reason)
    assert f"Not comparable with table 1: {reason}" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert first.ranks["ours", PSNR, ""] == 1


def test_the_experiments_reference_and_order(tmp_path):
    run = run_of(tmp_path / "run", {"a": 1.0, "full": 3.0})
    (run / "experiment.json").write_text(json.dumps({"reference": "full", "variants": {"full": {}, "a": {}}}))
    (table,) = write_leaderboard([run], run).tables
    assert table.reference == "full"
    assert [method.variant for method in table.methods][:2] == ["full", "a"]


@pytest.mark.slow
def test_variants_of_one_name_are_told_apart_by_their_runs(tmp_path):
    monday = run_of(tmp_path / "monday", {"full": 3.0, "half": 1.0})
    tuesday = run_of(tmp_path / "tuesday", {"full": 2.0})
    (monday / "experiment.json").write_text(json.dumps({"reference": "full", "variants": {"half": {}, "full": {}}}))
    (table,) = write_leaderboard([monday, tuesday], tmp_path / "out").tables
    assert table.reference == "monday/full"
    assert [method.variant for method in table.methods][:3] == ["half", "monday/full", "tuesday/full"]
    (monday / "experiment.json").unlink()
    (table,) = write_leaderboard([monday, tuesday], tmp_path / "out", "monday/full").tables
    assert [method.variant for method in table.methods][:3] == ["monday/full", "half", "tuesday/full"]
    assert table.methods[0].cost.seconds_per_frame == 4.5
    assert value_of(table, "monday/full") - value_of(table, "tuesday/full") == pytest.approx(1.0)
    twin = run_of(tmp_path / "sub" / "monday", {"full": 2.0})
    with pytest.raises(UserError, match="another run has a variant 'monday/full' too; rename"):
        write_leaderboard([monday, twin], tmp_path / "out")
    with pytest.raises(UserError, match="named twice"):
        write_leaderboard([monday, monday / "." / ".." / "monday"], tmp_path / "out")


def test_a_method_that_lacks_edits_is_said_to(tmp_path):
    one, other = run_of(tmp_path / "one", {"full": 3.0}), run_of(tmp_path / "other", {"theirs": 2.0}, metas=False)
    lines = (other / "rows.jsonl").read_text().splitlines(keepends=True)
    (other / "rows.jsonl").write_text("".join(line for line in lines if '"edit-0"' not in line))
    write_provenance(other, replace(MADE, rows=content_digest(other / "rows.jsonl")))
    text = str(write_leaderboard([one, other], tmp_path / "out"))
    assert "theirs: 7 of 8 edits; its means are over those, its ranks over those shared." in text


def test_clips_may_lie_elsewhere_in_another_run(tmp_path):
    one, other = run_of(tmp_path / "one", {"full": 3.0}), run_of(tmp_path / "other", {"theirs": 2.0}, metas=False)
    lines = (other / "rows.jsonl").read_text()
    (other / "rows.jsonl").write_text(lines.replace('"clips/', '"elsewhere/'))
    write_provenance(other, replace(MADE, rows=content_digest(other / "rows.jsonl")))
    (table,) = write_leaderboard([one, other], tmp_path / "out", "full").tables
    assert {score.clips for score in table.scores if score.interval and not score.category} == {CLIPS}
    assert table.ranks["theirs", PSNR, ""] == 2
    (paired,) = [d for d in table.differences if (d.variant, d.metric, d.category) == ("theirs", PSNR, "")]
    assert (paired.clips, paired.undefined) == (CLIPS, 0)


def test_the_page_sets_code_as_html_does_and_lets_columns_break(tmp_path):
    run = run_of(tmp_path / "run", {"a": 3.0, "b": 2.0}, MADE, metas=False)
    write_leaderboard([run], run, "a")
    page = (run / "leaderboard.html").read_text(encoding="utf-8")
    assert "`" not in page
    assert "<code>no edit</code> is the source handed in as the edit" in page
    assert re.search(r"<th>psnr/<wbr>\w+", page)


def test_names_cannot_break_out_of_a_table(tmp_path):
    name = "<script>alert(1)</script>|x"
    made = replace(MADE, manifest="<img src=x>")
    run = run_of(tmp_path / "run", {name: 3.0, "b": 2.0}, made, metas=False, notes="<b>&")
    write_leaderboard([run], run, name)
    html, markdown = (run / "leaderboard.html").read_text(), (run / "leaderboard.md").read_text()
    assert html.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x (reference)" in html
    for text in (html, markdown):
        assert "<img" not in text
        assert "<b>" not in text
    assert "http" not in html.replace("http-equiv", "")
    rows = [line for line in markdown.splitlines() if "alert(1)" in line and line.startswith("|")]
    assert rows
    assert all("\\|x" in line for line in rows)


def test_cells_are_texts_and_nothing_else(tmp_path):
    formula, ending, colour = "=HYPERLINK(1)", "back\\\\|slash\rline\u2028end", "\x1b[31mred"
    run = run_of(tmp_path / "run", {formula: 3.0, ending: 2.0, colour: 1.0}, metas=False)
    text = str(write_leaderboard([run], run, formula))
    with (run / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        assert {row["variant"] for row in csv.DictReader(file)} >= {f"'{formula}", ending, colour}
    with (run / "differences.csv").open(encoding="utf-8", newline="") as file:
        assert {row["reference"] for row in csv.DictReader(file)} == {f"'{formula}"}
    markdown = (run / "leaderboard.md").read_text(encoding="utf-8")
    for shown in (text, markdown):
        assert "\x1b" not in shown
        assert "\u2028" not in shown
    (line,) = [line for line in text.splitlines() if "slash" in line]
    assert line.startswith(r"| back\\\\\|slash line end | ")  # the pipe is escaped by a backslash of its own


def test_bad_input_is_one_sentence(tmp_path):
    run = run_of(tmp_path / "run", {"full": 3.0})
    with pytest.raises(UserError, match=r"nowhere: no scores .*run fatezero evaluate first"):
        write_leaderboard([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(UserError, match="name at least one run folder"):
        write_leaderboard([], tmp_path)
    with pytest.raises(UserError, match=r"no variant 'half'.*choose one of full, source, no edit"):
        write_leaderboard([run], run, "half")
    meta = run / "full" / "edit-0" / "meta.json"
    for damage in ("{", "[]", '{"timings": 3, "frames": 8}', '{"checkpoint": {"name": "x"}}'):
        meta.write_text(damage)
        (problem,) = write_leaderboard([run], run).problems
        assert "edit-0/meta.json: not " in problem
        assert problem.split(": ")[0] in (run / "leaderboard.md").read_text(encoding="utf-8")
    meta.unlink()
    rows = run / "evaluation" / "rows.jsonl"
    rows.write_text(rows.read_text().replace(WARP, "warp_error@0"))
    with pytest.raises(UserError, match="belongs to other rows than"):
        write_leaderboard([run], run)
    write_provenance(rows.parent, replace(MADE, rows=content_digest(rows)))
    with pytest.raises(UserError, match=r"'warp_error@0'.*score the clips again"):
        write_leaderboard([run], run)
    for damage in ("{", "{}", '{"rows": 1}'):
        (rows.parent / "provenance.json").write_text(damage)
        with pytest.raises(UserError, match=r"provenance\.json: no record"):
            write_leaderboard([run], run)


@pytest.mark.slow
def test_an_evaluation_records_what_it_was_made_with(run_folder, tiny_clip, tmp_path):
    manifest = run_folder.parent.parent / "manifest.jsonl"
    shared = {"manifest": manifest, "judge": str(tiny_clip), "metrics": ("psnr/truth", "text_alignment")}
    evaluation.evaluate_run(EvaluateRun(run=run_folder, **shared))
    made = read_provenance(run_folder / "evaluation")
    assert (made.manifest, made.edit_mask, made.device) == ("manifest", "given", "cpu")
    assert set(made.edits) == {"owl-1", "fox-1", "jeep-1"}
    assert set(made.models) == {"clip"}  # no metric looked at the flow
    assert made.metrics == ("text_alignment@1", "psnr/truth@1")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for edit in made.edits:
        (theirs / edit).symlink_to(run_folder / "full" / edit / "frames")
    evaluation.evaluate_videos(EvaluateVideos(method="theirs", videos=theirs, out=tmp_path / "scores", **shared))
    (table,) = write_leaderboard([run_folder, tmp_path / "scores"], tmp_path / "out", "full").tables
    same = [d for d in table.differences if d.variant == "theirs" and not d.category]
    assert [d.interval.value for d in same] == [0.0, 0.0]
    assert [d.p_value for d in same] == [1.0, 1.0]
