"""The report: one page that needs nothing beside it."""

import base64
import hashlib
import json
import os
import re
import shutil
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import read_clip, write_frames, write_video
from fatezero.data.files import content_digest
from fatezero.errors import UserError
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.options import EvaluateRun
from fatezero_eval.pages import gallery
from fatezero_eval.pages.page import embedded
from fatezero_eval.pages.run_page import write_report
from fatezero_eval.scoring.evaluation import evaluate_run
from fatezero_eval.scoring.rows import Row, read_rows, write_rows
from fatezero_eval.tables import statistics
from fatezero_eval.tables.leaderboard_files import write_leaderboard
from tests.eval.run_records import record_of

HOSTILE = "</script><script>hacked = 1</script><!-- <img src=x onerror='hacked=1'> \"quoted\" & 'single' \u2028"
SETTINGS = {"full": {}, "no fusion": {"fusion": None}}


class Page(HTMLParser):
    """Elements of a page with their attributes and texts, as a browser's parser would cut them."""

    def __init__(self, path):
        super().__init__()
        self.elements = [("", {}, [])]
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data):
        self.elements[-1][2].append(data)

    def named(self, name):
        return next("".join(texts) for _, attributes, texts in self.elements if attributes.get("id") == name)

    @property
    def document(self):
        return json.loads(self.named("data"))

    def media(self, number):
        return base64.b64decode(self.named(f"media-{number}"))


def report(run, **given):
    given.setdefault("manifest", run.parents[1] / "manifest.jsonl")
    return Page(write_report(run, **given).path)


def plan(run, settings=SETTINGS, **values):
    """Write `experiment.json`."""
    config = {"steps": 4, "blending": {"threshold": 0.3}}
    variants = {name: {"settings": changed, "config": config} for name, changed in settings.items()}
    experiment = {"name": "trial", "reference": "full", "command": "fatezero ablate", "manifest": "", **values}
    (run / "experiment.json").write_text(json.dumps({**experiment, "variants": variants}))


def scored(run):
    metrics = ("psnr/*", "temporal_flickering", "mask_iou")
    evaluate_run(EvaluateRun(run=run, manifest=run.parents[1] / "manifest.jsonl", metrics=metrics))
    return read_rows(run / "evaluation" / "rows.jsonl")


def decoded(content, path):
    path.write_bytes(content)
    return read_clip(ClipSpec(path=str(path))).frames


def tile(edit, frames, number):
    left, top = number % edit["columns"] * edit["cell_width"], number // edit["columns"] * edit["cell_height"]
    return frames[:, top : top + edit["height"], left : left + edit["width"]]


def distance(shown, expected):
    """Mean difference in luma: colours are stored at half the size."""
    return np.abs((shown.astype(float) - expected) @ (0.299, 0.587, 0.114)).mean()


def test_every_clip_of_an_edit_is_a_tile_of_its_video(run_folder, tmp_path):
    page = report(run_folder)
    edits = page.document["edits"]
    assert [edit["id"] for edit in edits] == ["owl-1", "fox-1", "jeep-1"]
    fox = edits[1]
    kinds = [(panel["kind"], panel.get("variant")) for panel in fox["panels"]]
    assert kinds == [("source", "no edit"), ("truth", None), ("variant", "full"), ("variant", "no fusion")]
    frames = decoded(page.media(fox["media"]), tmp_path / "sheet.mp4")
    assert len(frames) == fox["frames"] == 5
    stored = {
        "source": tmp_path / "clips" / "fox",
        "truth": tmp_path / "clips" / "fox-true",
        "full": run_folder / "full" / "fox-1" / "frames",
        "no fusion": run_folder / "no fusion" / "fox-1" / "frames",
    }
    for panel, path in zip(fox["panels"], stored.values(), strict=True):
        expected = read_clip(ClipSpec(path=str(path))).frames
        assert distance(tile(fox, frames, panel["tile"]), expected) < 8, path


def test_masks_are_tiles_of_the_same_video(run_folder, tmp_path):
    page = report(run_folder)
    fox = page.document["edits"][1]
    frames = decoded(page.media(fox["media"]), tmp_path / "sheet.mp4")
    source, truth, full, without = fox["panels"]
    assert source["mask"] == truth["mask"] != full["mask"]
    assert "mask" not in without
    own = read_clip(ClipSpec(path=str(run_folder / "full" / "fox-1" / "masks"))).frames
    assert distance(tile(fox, frames, full["mask"]), own) < 8


@pytest.mark.parametrize(("few", "height", "width"), [(1, 256, 384), (0, 160, 240)])
def test_previews_of_large_clips_are_small(tmp_path, monkeypatch, few, height, width):
    monkeypatch.setattr(gallery, "FEW", few)
    source = np.random.default_rng(0).integers(0, 255, (2, 320, 480, 3), dtype=np.uint8)
    write_frames(tmp_path / "clip", source)
    folder = tmp_path / "runs" / "large" / "full" / "a"
    write_frames(folder / "frames", source)
    request = EditRequest(id="a", clip=ClipSpec(path=str(tmp_path / "clip")), source_prompt="x", target_prompt="y")
    (folder / "meta.json").write_text(json.dumps(record_of(request)))
    (edit,) = report(tmp_path / "runs" / "large", manifest=None).document["edits"]
    assert (edit["height"], edit["width"]) == (height, width)


def test_the_manifests_digest_is_the_leaderboards(run_folder):
    manifest = run_folder.parents[1] / "manifest.jsonl"
    plan(run_folder, manifest=str(manifest), manifest_digest=content_digest(manifest))
    scored(run_folder)
    write_leaderboard([run_folder], run_folder)
    (table,) = json.loads((run_folder / "leaderboard.json").read_text(encoding="utf-8"))
    shown = report(run_folder).document["provenance"]["manifest_digest"]
    assert shown == table["evaluation"]["manifest_digest"] != ""
    plan(run_folder)
    assert report(run_folder).document["provenance"]["manifest_digest"] == ""


def test_scores_are_those_of_the_statistics(run_folder):
    plan(run_folder)
    rows = scored(run_folder)
    document = report(run_folder).document
    found = {(s["variant"], s["metric"], s["category"]): s["value"] for s in document["scores"]}
    expected = {(s.variant, s.metric, s.category): s.interval and s.interval.value for s in statistics.scores(rows)}
    assert found == expected
    gaps = {(d["variant"], d["metric"], d["category"]): d["value"] for d in document["differences"]}
    assert gaps == {
        (d.variant, d.metric, d.category): d.interval and d.interval.value for d in statistics.differences(rows, "full")
    }
    assert gaps["no fusion", "psnr/truth@1", ""] < 0


def test_a_clips_score_is_the_mean_of_its_curve(run_folder):
    values = {(row.edit, row.variant, row.metric): row.value for row in scored(run_folder)}
    fox = report(run_folder).document["edits"][1]
    drawn = [panel for panel in fox["panels"] if panel["kind"] != "truth"]
    drawable = {"psnr/truth@1", "psnr/outside@1", "temporal_flickering@1"}
    assert [set(panel["curves"]) for panel in drawn] == [drawable] * 3
    for panel in drawn:
        assert len(panel["curves"]["psnr/truth@1"]) == 5
        assert len(panel["curves"]["temporal_flickering@1"]) == 4
        for metric, curve in panel["curves"].items():
            assert np.mean(curve) == pytest.approx(values["fox-1", panel["variant"], metric], rel=1e-4)


def test_a_sweep_is_several_variants_that_change_one_field(run_folder):
    settings = {
        "full": {},
        "low": {"blending.threshold": 0.1},
        "high": {"blending.threshold": 0.5},
        "few": {"steps": 2},
        "both": {"steps": 2, "blending.threshold": 0.2},
    }
    plan(run_folder, settings)
    sweep = {"field": "blending.threshold", "points": [["low", 0.1], ["full", 0.3], ["high", 0.5]]}
    assert report(run_folder).document["sweeps"] == [sweep]


def test_seeds_of_a_variant_stand_beside_each_other(run_folder):
    folder = run_folder / "full" / "owl-1"
    shutil.copytree(folder, run_folder / "full" / "owl-1.seed7")
    meta = json.loads((folder / "meta.json").read_text())
    meta["request"]["seed"] = 7
    (run_folder / "full" / "owl-1.seed7" / "meta.json").write_text(json.dumps(meta))
    edits = report(run_folder).document["edits"]
    assert len(edits) == 3
    assert [(p["variant"], p["seed"]) for p in edits[0]["panels"][2:]] == [("full", 0), ("full", 7), ("no fusion", 0)]


def test_attention_is_kept_once_for_variants_that_share_it(run_folder):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 120, 3), dtype=np.uint8))
    for variant in SETTINGS:
        picture.save(run_folder / variant / "owl-1" / "attention_0_owl.png")
    page = report(run_folder)
    (attention,) = page.document["edits"][0]["attention"]
    assert (attention["word"], attention["variants"]) == ("owl", ["full", "no fusion"])
    assert page.media(attention["media"])[8:12] == b"WEBP"


def test_a_plain_run_without_scores_shows_videos(run_folder):
    document = report(run_folder, manifest=None).document
    assert (document["name"], document["reference"], document["scores"]) == ("demo", None, [])
    assert {panel["kind"] for edit in document["edits"] for panel in edit["panels"]} == {"source", "variant"}


def test_what_is_missing_is_said(run_folder):
    plan(run_folder, {**SETTINGS, "never made": {"steps": 2}}, manifest="elsewhere/manifest.yaml")
    rows = scored(run_folder)
    write_rows(run_folder / "evaluation", [r for r in rows if (r.edit, r.variant) != ("owl-1", "full")])
    shutil.rmtree(run_folder / "no fusion" / "jeep-1")
    shutil.rmtree(run_folder / "full" / "fox-1" / "frames")
    problems = report(run_folder).document["problems"]
    assert "never made: 3 of 3 results were not made: owl-1, fox-1, jeep-1." in problems
    assert "no fusion: 1 of 3 results were not made: jeep-1." in problems
    assert any(p.startswith("Not scored (1): full/owl-1/0.") for p in problems)
    document = report(run_folder, manifest=None).document
    assert any("elsewhere/manifest.yaml is not here" in problem for problem in document["problems"])
    fox = next(edit for edit in document["edits"] if edit["id"] == "fox-1")
    assert "frames" in next(panel["problem"] for panel in fox["panels"] if panel.get("variant") == "full")
    assert [panel["tile"] for panel in fox["panels"] if panel.get("variant") == "no fusion"] == [1]


def test_failures_that_were_kept_are_shown(run_folder):
    (run_folder / "full" / "plan.json").write_text(json.dumps({"owl-1": "a", "cat-1": "b", "dog-1": "c"}))
    (run_folder / "full" / "cat-1.failed.json").write_text(json.dumps({"id": "cat-1", "reason": "No <memory> left."}))
    assert report(run_folder).document["problems"] == [
        "full/cat-1 failed: No <memory> left.",
        "full: 1 of 3 results were not made: dog-1.",
    ]


def test_an_edit_whose_source_is_gone_is_listed(run_folder, tmp_path):
    shutil.rmtree(tmp_path / "clips" / "owl")
    owl = report(run_folder).document["edits"][0]
    assert "owl" in owl["problem"]
    assert "media" not in owl


def test_texts_cannot_become_markup(run_folder):
    for meta in run_folder.glob("*/fox-1/meta.json"):
        values = json.loads(meta.read_text())
        values["request"] |= {"target_prompt": HOSTILE, "category": HOSTILE}
        meta.write_text(json.dumps(values))
    plan(run_folder, name=HOSTILE, command=HOSTILE)
    page = report(run_folder, manifest=None)
    scripts = [attributes.get("type") for tag, attributes, _ in page.elements if tag == "script"]
    assert scripts == ["application/json", "text/plain", "text/plain", "text/plain", None]
    assert page.document["edits"][0]["target_prompt"] == page.document["name"] == HOSTILE
    assert "hacked" in page.text  # it is there, as data and in the title
    assert not [tag for tag, attributes, _ in page.elements if tag == "img" or "onerror" in attributes]


def test_embedded_json_round_trips():
    assert json.loads(embedded([HOSTILE])) == [HOSTILE]
    assert not set("<>&\u2028") & set(embedded([HOSTILE]))


def test_equal_runs_give_equal_bytes(run_folder, tmp_path):
    plan(run_folder)
    scored(run_folder)
    first = write_report(run_folder, tmp_path / "manifest.jsonl", None).path.read_bytes()
    assert write_report(run_folder, tmp_path / "manifest.jsonl", None).path.read_bytes() == first
    assert not list(run_folder.glob(".*partial*"))


def test_the_page_needs_nothing_beside_it(run_folder):
    scored(run_folder)
    page = report(run_folder)
    policy = next(a["content"] for tag, a, _ in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        content = re.findall(f"<{tag}>(.*?)</{tag}>", page.text, flags=re.DOTALL)
        assert len(content) == 1
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    own = re.sub(r'<script type="text/plain".*?</script>', "", page.text)
    own = own.replace(page.named("data"), "")
    assert set(re.findall(r"\w+://[\w./-]*", own)) == {"http://www.w3.org/2000/svg"}
    for tag, attributes, _ in page.elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "data:,").startswith("data:"), tag


def damaged_record(run):
    (run / "full" / "owl-1" / "meta.json").write_text('{"request": ')


def damaged_experiment(run):
    (run / "experiment.json").write_text('{"name": "x", "variants": []}')


def foreign_reference(run):
    plan(run, reference="none of them")


def damaged_rows(run):
    (run / "evaluation").mkdir()
    (run / "evaluation" / "rows.jsonl").write_text("{}\n")


def damaged_plan(run):
    (run / "full" / "plan.json").write_text("[1")


def damaged_attention(run):
    (run / "full" / "owl-1" / "attention_0_owl.png").write_bytes(b"\x89PNG")


def nothing_done(run):
    shutil.rmtree(run)
    run.mkdir()


def no_run(run):
    shutil.rmtree(run)


def damaged_failure(run):
    (run / "full" / "plan.json").write_text('{"owl-1": "", "cat-1": ""}')
    (run / "full" / "cat-1.failed.json").write_text('{"reason": [1, NaN]}')


def waiting_plan(run):
    os.mkfifo(run / "full" / "plan.json")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (damaged_record, "full/owl-1/meta.json"),
        (damaged_experiment, "experiment.json"),
        (foreign_reference, "none of them"),
        (damaged_rows, "rows.jsonl, line 1"),
        (damaged_plan, "plan.json"),
        (waiting_plan, "plan.json"),
        (damaged_failure, "cat-1.failed.json"),
        (damaged_attention, "attention_0_owl.png"),
    ],
)
def test_what_is_damaged_is_said_and_the_rest_appears(run_folder, spoil, named):
    spoil(run_folder)
    written = write_report(run_folder, run_folder.parents[1] / "manifest.jsonl", None)
    (problem,) = written.problems
    assert named in problem
    assert "\n" not in problem
    document = Page(written.path).document
    assert problem in document["problems"]
    panels = [panel for edit in document["edits"] for panel in edit["panels"] if panel["kind"] == "variant"]
    assert len(panels) == (5 if spoil is damaged_record else 6)
    assert all("tile" in panel for panel in panels)


@pytest.mark.parametrize(("spoil", "named"), [(nothing_done, "no finished edit"), (no_run, "no such run folder")])
def test_what_is_no_run_is_refused_in_a_sentence(run_folder, spoil, named):
    spoil(run_folder)
    with pytest.raises(UserError, match=re.escape(named)) as refused:
        write_report(run_folder, None, None)
    assert "\n" not in str(refused.value)
    assert not (run_folder / "index.html").exists()


def test_shorter_clips_hold_their_last_frame(run_folder, tmp_path):
    folder = run_folder / "full" / "fox-1" / "frames"
    frames = read_clip(ClipSpec(path=str(folder))).frames
    shutil.rmtree(folder)
    write_frames(folder, frames[:3])
    page = report(run_folder)
    fox = page.document["edits"][1]
    panel = fox["panels"][2]
    assert panel["frames"] == 3
    shown = tile(fox, decoded(page.media(fox["media"]), tmp_path / "sheet.mp4"), panel["tile"])
    assert distance(shown[4], frames[2]) < 8 < distance(shown[0], frames[2])
    assert "length" in panel["problem"]


def test_previews_keep_the_times_of_uneven_clips(tmp_path):
    times = (0.0, 0.04, 0.5, 1.0)
    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.webp", frames[:3], times)
    folder = tmp_path / "runs" / "uneven" / "full" / "a"
    write_frames(folder / "frames", frames)  # two more than the source, for as long as its last
    clip = ClipSpec(path=str(tmp_path / "clip.webp"))
    request = EditRequest(id="a", clip=clip, source_prompt="x", target_prompt="y")
    (folder / "meta.json").write_text(json.dumps(record_of(request)))
    page = report(tmp_path / "runs" / "uneven", manifest=None)
    (edit,) = page.document["edits"]
    assert edit["times"] == [0.0, 0.04, 0.5, 1.0, 1.5, 2.0]
    path = tmp_path / "sheet.mp4"
    path.write_bytes(page.media(edit["media"]))
    with av.open(str(path)) as container:
        assert [float(frame.time) for frame in container.decode(video=0)] == edit["times"][:-1]
        assert container.duration == 2_000_000


def test_videos_are_h264_that_every_browser_plays(run_folder, tmp_path):
    page = report(run_folder)
    path = tmp_path / "sheet.mp4"
    path.write_bytes(page.media(page.document["edits"][0]["media"]))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.width % 16 == context.height % 16 == 0


def test_intervals_of_few_clips_are_null(run_folder):
    names = {"clip": "c", "edit": "owl-1", "category": "", "variant": "full", "seed": 0, "metric": "psnr/truth@1"}
    row = Row(**names, value=20.0, defined=1, undefined=0, reason="", model="")
    write_rows(run_folder / "evaluation", [row])
    score = report(run_folder).document["scores"][0]
    assert (score["value"], score["low"], score["high"]) == (20.0, None, None)
