"""What the trackers got, read back from their own files."""

import csv
import json
import os
import socket
import struct
import subprocess
import sys

import pytest
import wandb
import yaml
from wandb.proto import wandb_internal_pb2

from fatezero.clips.video import write_frames, write_video
from fatezero.data.files import content_digest
from fatezero.data.manifest import request_to_json
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval import tracking
from fatezero_eval.scoring.provenance import Provenance, write_provenance
from fatezero_eval.scoring.rows import Row, read_rows, write_rows
from fatezero_eval.tables import statistics
from fatezero_eval.tables.leaderboard_files import write_leaderboard

METRIC = "psnr/truth@1"
VARIANTS = {"full": 3.0, "no_fusion": 1.0}
EDITS = 6


@pytest.fixture
def run(tmp_path, make_frames):
    """A small finished experiment with videos of one edit."""
    folder, rows = tmp_path / "experiment", []
    for variant, gain in VARIANTS.items():
        for number in range(EDITS):
            name = f"edit-{number}"
            row = {"clip": f"clip-{number}", "edit": name, "category": "style", "variant": variant, "seed": 0}
            row |= {"metric": METRIC, "defined": 3, "undefined": 0, "reason": "", "model": ""}
            rows.append(Row(**row, value=20.0 + number + gain * (1 + 0.1 * number)))
            prompts = {"source_prompt": "an owl", "target_prompt": "a red owl"}
            request = EditRequest(id=name, clip=ClipSpec(path=f"{number}.mp4"), **prompts)
            meta = {"request": request_to_json(request), "config": {"steps": 50}, "frames": 3, "timings": {"all": 6.0}}
            target = folder / variant / name
            target.mkdir(parents=True)
            if number == 0:
                write_video(target / "side_by_side.mp4", make_frames(3, number), 8)
            (target / "meta.json").write_text(json.dumps(meta))
    lines, _ = write_rows(folder / "evaluation", rows)
    made = Provenance(
        rows=content_digest(lines), manifest="bench", manifest_digest="0123", models={}, edit_mask="given",
        edits={f"edit-{number}": "x" for number in range(EDITS)}, metrics=(METRIC,), device="cpu", versions={},
    )  # fmt: skip
    write_provenance(folder / "evaluation", made)
    variants = {name: {"settings": {"fusion": name == "full"}, "config": {"steps": 50}} for name in VARIANTS}
    experiment = {"name": "demo", "reference": "full", "variants": variants}
    (folder / "experiment.json").write_text(json.dumps(experiment))
    write_frames(folder / "figure", make_frames(1, 0))
    (folder / "figure" / "00000.png").rename(folder / "tradeoff.png")
    return folder


def records_of(path):
    """Records of an offline run: a LevelDB log (32 KiB blocks of chunks with checksum, length and kind)."""
    data, position, whole = path.read_bytes(), 7, b""  # after W&B's own header
    while position + 7 <= len(data):
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
        if kind in (1, 4):  # the only or the last chunk of a record
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read_back(run):
    """Of each W&B run by name: group, configuration, summary, logged values, and its folder of files."""
    wandb.teardown()  # at the latest, files are whole when the process ends
    found = {}
    for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        about, config, summary, history = None, {}, {}, {}
        for record in records_of(path):
            if record.HasField("run"):
                about = record.run
            for item in (*record.config.update, *(about.config.update if record.HasField("run") else ())):
                config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            for item in record.summary.update:
                summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
            for item in record.history.item:
                name, *inner = [item.key] if item.key else item.nested_key
                value = json.loads(item.value_json)
                history[name] = {**history.get(name, {}), inner[0]: value} if inner else value
        found[about.display_name] = (about, config, summary, history, path.parent / "files")
    return found


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    """No account, whoever runs this."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_the_offline_runs_hold_everything(run, isolated):
    board = write_leaderboard([run], run)
    said = tracking.track(run, "offline", "lab")
    assert said.startswith("W&B has 2 variants, tables and all 2 side-by-side videos in ")
    found = read_back(run)
    assert set(found) == {"full", "no_fusion", "tables"}
    assert {about.run_group for about, *_ in found.values()} == {"demo"}
    assert {about.project for about, *_ in found.values()} == {"lab"}
    scores = {s.variant: s for s in statistics.scores(read_rows(run / "evaluation" / "rows.jsonl")) if not s.category}
    for variant in VARIANTS:
        _, config, summary, history, files = found[variant]
        assert config["settings"] == {"fusion": variant == "full"}
        assert config["config"] == {"steps": 50}
        assert config["evaluation"]["manifest_digest"] == "0123"
        assert config["videos"] == "1 of 1"
        interval = scores[variant].interval
        logged = [summary[key] for key in (METRIC, f"{METRIC}/low", f"{METRIC}/high", f"{METRIC}/style")]
        assert logged == [interval.value, interval.low, interval.high, interval.value]
        assert summary[f"{METRIC}/rank"] == (1 if variant == "full" else 2)
        assert summary["cost/seconds_per_frame"] == 2.0
        video = history["side_by_side/edit-0"]
        assert video["caption"] == "an owl -> a red owl"
        original = run / variant / "edit-0" / "side_by_side.mp4"
        assert (files / video["path"]).read_bytes() == original.read_bytes()
    _, _, _, history, files = found["tables"]
    saved = json.loads((files / history["leaderboard"]["path"]).read_text())
    values = [dict(zip(saved["columns"], line, strict=True)) for line in saved["data"]]
    assert [(v["variant"], v["category"], v["value"]) for v in values] == [
        (s.variant, s.category, s.interval.value) for s in board.tables[0].scores
    ]
    saved = json.loads((files / history["differences"]["path"]).read_text())
    first = dict(zip(saved["columns"], saved["data"][0], strict=True))
    assert (first["variant"], first["value"]) == ("no_fusion", board.tables[0].differences[0].interval.value)
    assert first["p_holm"] == 2 / 2**EDITS
    assert (files / history["plots/tradeoff"]["path"]).is_file()


def test_a_sweep_gets_the_variant_it_asked_for(run, isolated, monkeypatch):
    write_leaderboard([run], run)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert tracking.track(run, "offline", "lab", ["no_fusion"]) == "W&B's sweep has the numbers of no_fusion."
    found = read_back(run)
    assert set(found) == {"no_fusion"}
    _, config, summary, *_ = found["no_fusion"]
    assert config["settings"] == {"fusion": False}
    assert summary[METRIC] == pytest.approx(23.75)


def test_videos_are_limited_and_counted(run, isolated, monkeypatch):
    monkeypatch.setattr(tracking, "VIDEOS", 1)
    for variant in VARIANTS:
        (run / variant / "edit-1" / "side_by_side.mp4").write_bytes(
            (run / variant / "edit-0" / "side_by_side.mp4").read_bytes()
        )
    said = tracking.track(run, "offline", "lab")
    assert "2 of 4 side-by-side videos (at most 1 of a variant; the run's page shows all) in " in said
    assert read_back(run)["full"][1]["videos"] == "1 of 2"


@pytest.mark.slow
def test_results_logged_again_keep_their_ids(run, isolated):
    tracking.track(run, "offline", "lab")
    tracking.track(run, "offline", "lab")
    names = [path.name for path in (run / "wandb").glob("offline-run-*/run-*.wandb")]
    assert len(set(names)) == 3


def test_disabled_does_nothing(run):
    assert tracking.track(run, "disabled", "lab") is None
    assert not (run / "wandb").exists()
    assert not (run / "leaderboard.json").exists()


def test_a_failing_tracker_loses_nothing(run, isolated, monkeypatch):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = tracking.track(run, "online", "lab")  # without an account
    assert said.startswith(f"W&B has not got all of {run} (")
    assert said.endswith("the results themselves are whole.")
    assert "\n" not in said
    (run / "leaderboard.json").write_text("[")
    assert "has not got all" in tracking.track(run, "offline", "lab")
    (run / "leaderboard.json").unlink()
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    assert "has not got all" in tracking.track(run, "offline", "lab")
    assert tracking.default_mode() == "offline"
    assert "no scores" in tracking.track(run / "full", "offline", "lab")
    for path, content in before.items():
        assert path.read_bytes() == content


@pytest.mark.slow
def test_a_server_that_does_not_answer_loses_nothing(run, isolated, monkeypatch):
    with socket.socket() as taken:  # bound and never listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(tracking, "_PATIENCE", 2)
        assert "has not got all" in tracking.track(run, "online", "lab")


@pytest.mark.parametrize(("asked", "mode"), [({}, "offline"), ({"WANDB_MODE": "disabled"}, "disabled")])
def test_the_default_mode(isolated, asked, mode):
    code = "from fatezero_eval.tracking import default_mode; print(default_mode())"
    environment = {**os.environ, **asked}  # a process of its own: W&B remembers accounts
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split()[-1] == mode


def test_lightnings_loggers_are_alternatives(run):
    assert tracking.track_with_lightning(run, "csv").endswith("csv has the numbers of 2 variants.")
    folder = run / "csv" / "no_fusion"
    with (folder / "metrics.csv").open() as file:
        (numbers,) = csv.DictReader(file)
    interval = statistics.scores(read_rows(run / "evaluation" / "rows.jsonl"))
    value = next(s.interval.value for s in interval if s.variant == "no_fusion" and not s.category)
    assert float(numbers[METRIC]) == value
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["settings"] == {"fusion": False}
    said = tracking.track_with_lightning(run, "tensorboard")
    assert "has the numbers of 2 variants" in said or "tensorboard" in said.lower()


def test_only_tracking_knows_wandb_and_only_when_it_runs():
    code = (
        "import sys, fatezero_eval.tracking; sys.exit(any(m in sys.modules for m in ('wandb', 'torch', 'lightning')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
