"""Which metric can be trusted: degradations of known order, correlations beside SciPy's, and what is said of them."""

import csv
import json
from dataclasses import replace
from math import isnan
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from fatezero.cli import main
from fatezero.clips.video import read_clip, write_frames
from fatezero.errors import UserError
from fatezero.types import ClipSpec
from fatezero_eval.options import EvaluateRun
from fatezero_eval.scoring.evaluation import evaluate_run
from fatezero_eval.validity.agreement import agreements, goodness, preferences
from fatezero_eval.validity.degradations import DEGRADATIONS, KnownEdit, degraded
from fatezero_eval.validity.rank_correlation import kendall, levelled, spearman
from fatezero_eval.validity.trust_files import trust_of, write_trust
from tests.eval.conftest import drifting
from tests.eval.scored_folders import MADE, rows_of, scored_folder

NEAR, FLICKER, TEXT, OUTSIDE, ACCURACY = (
    *("mse/truth@1", "temporal_flickering@1", "text_alignment@1", "psnr/outside@1", "frame_accuracy@1"),
)
VERSIONS = ("undegraded", "noise-2", "noise-5", "frozen", "no edit")
CLIPS = 8


@pytest.fixture(scope="module")
def known():
    source = drifting(6, 0)
    return KnownEdit(source=source, true_edit=255 - source, wrong_edit=np.roll(source, 5, axis=2))


def far(known, name):
    return ((degraded(known, name, 1) - known.true_edit.astype(float)) ** 2).mean()


def test_coefficients_are_scipys_with_ties_and_without():
    rng = np.random.default_rng(0)
    for count in (3, 5, 20):
        for ties in (False, True):
            one, other = rng.normal(size=(2, count))
            if ties:
                one, other = np.round(one), np.round(other * 2) / 2
            assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12, nan_ok=True)
            assert kendall(one, other) == pytest.approx(stats.kendalltau(one, other).statistic, abs=1e-12, nan_ok=True)
    assert isnan(spearman(np.ones(4), np.arange(4.0)))
    assert isnan(kendall(np.arange(4.0), np.ones(4)))


def test_rounding_is_no_order():
    values = levelled([0.1 + 0.2, 0.3, 0.5])
    assert values[0] == values[1] < values[2]
    assert list(levelled([0.0, 0.0])) == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["noise", "blur", "flicker", "colour", "shift", "mixture"])
def test_more_of_a_degradation_is_farther_from_the_true_edit(known, kind):
    strengths = sorted(
        (name for name in DEGRADATIONS if name.startswith(f"{kind}-")), key=lambda n: float(n[len(kind) + 1 :])
    )
    distances = [far(known, name) for name in strengths]
    assert len(strengths) >= 2
    assert distances[0] > 0
    assert distances == sorted(distances)


def test_degradations_are_what_they_are_called(known):
    frames = {name: degraded(known, name, 1) for name in DEGRADATIONS}
    assert all(found.dtype == np.uint8 and found.shape == known.source.shape for found in frames.values())
    assert (frames["undegraded"] == known.true_edit).all()
    assert (frames["frozen"] == known.true_edit[0]).all()
    assert (frames["wrong-edit"] == known.wrong_edit).all()
    assert (frames["shift-4"][:, :, 4:] == known.true_edit[:, :, :-4]).all()
    half = frames["mixture-50"].astype(float)
    assert np.abs(half - (known.source.astype(float) + known.true_edit) / 2).max() <= 0.5
    shuffled = sorted(frame.tobytes() for frame in frames["shuffled"])
    assert shuffled == sorted(frame.tobytes() for frame in known.true_edit)
    noise = frames["noise-2"] - known.true_edit.astype(float)
    assert noise[(known.true_edit > 30) & (known.true_edit < 225)].std() == pytest.approx(0.02 * 255, rel=0.05)
    assert all((degraded(known, name, 1) == frames[name]).all() for name in DEGRADATIONS)
    assert (degraded(known, "noise-2", 2) != frames["noise-2"]).any()
    assert degraded(replace(known, wrong_edit=None), "wrong-edit", 1) is None


def example_rows():
    """Nearness as stated; flicker sees it backwards but for frozen, text follows it, outside never changes."""
    distances = {"undegraded": 0.0, "noise-2": 0.1, "noise-5": 0.2, "frozen": 0.3, "no edit": 0.4}
    scores = {}
    for version, distance in distances.items():
        scores[version, NEAR] = [distance * (1 + clip) for clip in range(CLIPS)]
        scores[version, TEXT] = [90 - 10 * distance + clip for clip in range(CLIPS)]
        scores[version, FLICKER] = [0.9 + distance / 10 for clip in range(CLIPS)]
        scores[version, OUTSIDE] = [30.0] * CLIPS
    scores["undegraded", ACCURACY] = scores["frozen", ACCURACY] = [1.0] * CLIPS
    scores["noise-5", ACCURACY] = [1.0] * (CLIPS - 1) + [0.0]
    scores["source", TEXT] = [1.0] * CLIPS  # answers to another prompt
    return rows_of(scores, categories=["style", "shape"] * (CLIPS // 2))


def test_known_orders_have_known_coefficients_and_verdicts():
    found = {finding.metric: finding for finding in trust_of(example_rows(), "mse/truth").findings}
    text, flicker, outside = found[TEXT], found[FLICKER], found[OUTSIDE]
    assert text.agreements[""].spearman.value == text.agreements[""].kendall.value == 1
    assert (text.agreements[""].clips, text.agreements["style"].clips) == (CLIPS, CLIPS // 2)
    assert (text.verdict, text.misled_by, text.blind_to) == ("strong", (), ())
    assert flicker.agreements["shape"].spearman.value == -1
    assert (flicker.verdict, flicker.misled_by) == ("points away", VERSIONS[1:])
    assert (outside.verdict, outside.agreements[""].undefined, outside.blind_to) == ("undefined", CLIPS, VERSIONS[1:])
    assert found[ACCURACY].blind_to == ("frozen",)  # seven clips of eight with noise: too few to say so
    assert found[ACCURACY].agreements[""].edits == 1  # the others tie
    assert list(found) == [TEXT, ACCURACY, FLICKER, OUTSIDE]


def test_edits_of_a_clip_are_averaged_before_clips():
    """Three edits of two clips: right, wrong; right."""
    versions = {"a": (1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0), "c": (3.0, 3.0, 3.0)}
    text = {"a": (3.0, 1.0, 3.0), "b": (2.0, 2.0, 2.0), "c": (1.0, 3.0, 1.0)}
    scores = {(v, NEAR): values for v, values in versions.items()} | {(v, TEXT): values for v, values in text.items()}
    rows = rows_of(scores, clips=("x", "x", "y"))
    (whole,) = agreements(goodness(rows), [(TEXT, NEAR)], {(row.clip, row.edit): "" for row in rows})
    assert (whole.spearman.value, whole.clips, whole.edits, whole.undefined) == (0.5, 2, 3, 0)
    assert not whole.spearman.known
    assert not preferences(goodness(rows), NEAR, 0.0)  # no version is the true edit


def test_seeds_of_an_edit_are_averaged_and_the_source_is_no_version():
    rows = rows_of({("a", TEXT): [1.0], ("source", TEXT): [5.0]})
    known = goodness([*rows, replace(rows[0], seed=1, value=3.0)])
    assert known == {TEXT: {("clips/0", "edit-0"): {"a": 2.0}}}


def test_files_say_the_same_and_are_the_same_each_time(tmp_path):
    folder = scored_folder(tmp_path / "run", example_rows())
    found = write_trust([folder], tmp_path / "out")
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == {"trust.md", "trust.csv", "trust.json", "trust.svg", "preferences.csv"}
    write_trust([folder], tmp_path / "out")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with (tmp_path / "out" / "trust.csv").open(encoding="utf-8", newline="") as file:
        table = {(row["metric"], row["other"], row["category"]): row for row in csv.DictReader(file)}
    assert table[TEXT, NEAR, ""]["spearman"] == "1.0"
    assert table[TEXT, FLICKER, ""]["spearman"] == "-1.0"
    saved = json.loads((tmp_path / "out" / "trust.json").read_text(encoding="utf-8"))
    verdicts = {metric["metric"]: metric["verdict"] for metric in saved["metrics"]}
    assert verdicts == {finding.metric: finding.verdict for finding in found.findings}
    markdown = (tmp_path / "out" / "trust.md").read_text(encoding="utf-8")
    assert "| temporal_flickering@1 ↑ | points away | -1.00 [-1.00, -1.00] |" in markdown
    assert "| temporal_flickering@1 ↑ | 100% | 100% | 100% | 100% |" in markdown
    picture = ElementTree.fromstring(first["trust.svg"].decode())
    dots = [float(dot.get("cx")) for dot in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert dots == sorted(dots, reverse=True)
    assert len(dots) == len([f for f in found.findings if f.agreements[""].spearman])
    words = [word.text for word in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "Spearman's coefficient with nearness by mse/truth@1"
    assert words[-4:] == ["strong", "fair", "weak", "says nothing, or points away"]


def test_versions_may_lie_in_several_runs(tmp_path):
    rows = example_rows()
    ours = scored_folder(tmp_path / "ours", [row for row in rows if row.variant != "frozen"])
    theirs = scored_folder(tmp_path / "theirs", [row for row in rows if row.variant in ("frozen", "no edit")])
    together, whole = write_trust([ours, theirs], tmp_path / "out"), trust_of(rows, "mse/truth")
    assert {f.metric: f.agreements for f in together.findings} == {f.metric: f.agreements for f in whole.findings}


def test_without_the_true_edit_nothing_is_said_to_mislead():
    """Not even that nothing does."""
    said = str(trust_of([row for row in example_rows() if row.variant != "undegraded"], "mse/truth"))
    assert "no version is the true edit itself" in said
    assert "Nothing" not in said
    assert "Nothing. On more than half" in str(
        trust_of([row for row in example_rows() if row.metric in (NEAR, TEXT)], "mse/truth")
    )


def test_what_cannot_be_compared_is_one_sentence(tmp_path):
    folder = scored_folder(tmp_path / "run", example_rows())
    with pytest.raises(UserError, match=r"'text_alignment' is no distance to the true edit; choose one of mse/truth"):
        write_trust([folder], tmp_path, "text_alignment")
    with pytest.raises(UserError, match=r"no edit has a ssim/truth: run fatezero evaluate with --manifest"):
        write_trust([folder], tmp_path, "ssim/truth")
    near = {(name, NEAR): [0.1] * CLIPS for name in VERSIONS}
    with pytest.raises(UserError, match=r"nothing but mse/truth is scored"):
        trust_of(rows_of(near), "mse/truth")
    two = [row for row in example_rows() if row.variant in VERSIONS[:2]]
    with pytest.raises(UserError, match=r"no edit has more than 2 versions, and an order takes 3"):
        trust_of(two, "mse/truth")
    judged = [
        scored_folder(tmp_path / judge, example_rows(), replace(MADE, models={"clip": judge}))
        for judge in ("ours", "theirs")
    ]
    with pytest.raises(UserError, match=r"theirs cannot be counted with .*ours: another"):
        write_trust(judged, tmp_path)
    other = scored_folder(tmp_path / "other", rows_of({("a", NEAR): [0.1]}), replace(MADE, edit_mask="own"))
    with pytest.raises(UserError, match=r"cannot be counted with .*another edit mask: given against own"):
        write_trust([folder, other], tmp_path)


@pytest.mark.slow
def test_from_a_manifest_to_the_table(run_folder, tmp_path, capsys):
    """Degrade, score and ask, as the command line does it."""
    made, degradations = run_folder.parent.parent / "manifest.jsonl", tmp_path / "degraded"
    (tmp_path / "lists").mkdir()
    manifest = made.rename(tmp_path / "lists" / made.name)
    assert main(["degrade", str(manifest), "--root", str(tmp_path), "--out", str(degradations)]) == 0
    assert json.loads((degradations / "experiment.json").read_text(encoding="utf-8"))["root"] == str(tmp_path)
    frames = read_clip(ClipSpec(path=str(degradations / "frozen" / "fox-1" / "frames"))).frames
    assert (frames == frames[0]).all()
    assert not (degradations / "wrong-edit").exists()  # each clip has one edit
    metrics = ["mse/truth", "psnr/truth", "psnr/outside", "temporal_flickering"]
    assert main(["evaluate", str(degradations), "--manifest", str(manifest), "--metrics", *metrics]) == 0
    assert main(["trust", str(degradations)]) == 0
    said = capsys.readouterr().out
    assert "| psnr/truth@1 ↑ * | too few clips |" in said
    saved = json.loads((degradations / "trust.json").read_text(encoding="utf-8"))
    shares = {(p["metric"], p["version"]): p["better"] for p in saved["preferences"]}
    assert shares["temporal_flickering@1", "frozen"] == 1.0
    assert shares["psnr/outside@1", "no edit"] == 0  # the truth leaves everything outside as it is
    assert {v["version"] for v in saved["versions"]} == {*DEGRADATIONS, "no edit"} - {"wrong-edit"}
    assert main(["degrade", str(manifest), "--root", str(tmp_path), "--out", str(run_folder)]) == 1
    assert "has results of 'full', which degrades nothing" in capsys.readouterr().err
    assert not (run_folder / "undegraded").exists()
    nothing = tmp_path / "unknown.jsonl"
    nothing.write_text("\n".join(line.partition(', "truth"')[0] + "}" for line in manifest.read_text().splitlines()))
    assert main(["degrade", str(nothing), "--out", str(tmp_path / "none")]) == 1
    assert "There is no true edit to degrade.\nowl-1: its true edit is not known" in capsys.readouterr().err


def test_degraded_edits_of_any_name_stay_in_their_run_and_know_their_root(tmp_path):
    frames = drifting(2, 0)
    write_frames(tmp_path / "root" / "clip", frames)
    write_frames(tmp_path / "root" / "truth", 255 - frames)
    edit = {"id": "../../a b", "clip": "clip", "source_prompt": "", "target_prompt": "", "truth": {"clip": "truth"}}
    (tmp_path / "list.json").write_text(json.dumps([edit]), encoding="utf-8")
    run = tmp_path / "runs" / "spoilt"
    assert main(["degrade", str(tmp_path / "list.json"), f"--root={tmp_path / 'root'}", f"--out={run}"]) == 0
    assert {path.name for path in run.parent.iterdir()} == {"spoilt"}
    found = evaluate_run(EvaluateRun(run=run, manifest=tmp_path / "list.json", metrics=("psnr/truth",)))
    assert not found.failures
    assert {row.value for row in found.rows if row.variant == "undegraded"} == {100}
