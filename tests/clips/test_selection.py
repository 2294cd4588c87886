"""Which frames of a clip are asked for, at every door: the command line, --config files, manifests, records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fatezero.cli import VERBS, main
from fatezero.clips.video import read_clip, write_video
from fatezero.commands.edit import EditOptions, _requests
from fatezero.commands.option_words import gathered
from fatezero.commands.parsing import call, parse, parser_of
from fatezero.commands.tune import _each_clip
from fatezero.config import MethodConfig
from fatezero.data.manifest import read_manifest, request_from_json, request_to_json
from fatezero.data.timecode import parse_time
from fatezero.errors import UserError
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.scoring.clip_names import clip_name
from fatezero_eval.scoring.provenance import edit_digest

EDIT = {"id": "one", "clip": "a.mp4", "source_prompt": "a cat", "target_prompt": "a dog"}
ONE = ("--clip=a.mp4", "--source=a cat", "--target=a dog")


def options_of(verb: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a verb's function is given, by the real parser."""
    given: list[Any] = []

    def edit(options: EditOptions) -> None:
        given.append(options)

    def tune(options: TuningConfig) -> None:
        given.append(options)

    known = VERBS[verb]
    monkeypatch.setattr(f"{known.target.replace(':', '.')}", {"edit": edit, "tune": tune}[verb])
    read = gathered(known, [verb, *words], f"fatezero {verb}")
    parser = parser_of(known, [verb], MethodConfig())
    call(known, parser.instantiate(parse(parser, read, known, f"fatezero {verb}")))
    return given[0]


TYPED: Sequence[tuple[str, int | str]] = [
    ("30", 30),
    ("0", 0),
    ("-3", -3),
    ("012", 12),
    ("12.5s", "12.5s"),
    ("3s", "3s"),
    ("1:02", "1:02"),  # 62 in YAML 1.1
    ("1:02:03", "1:02:03"),  # 3723
    ("1:02.5", "1:02.5"),
    ("00:01:02.5", "00:01:02.5"),
    ("01:02", "01:02"),
]


@pytest.mark.parametrize("verb", ["edit", "tune"])
@pytest.mark.parametrize(("word", "value"), TYPED)
def test_the_command_line_keeps_what_is_typed(
    verb: str, word: str, value: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = ("--clip=a.mp4", "--prompt=a cat") if verb == "tune" else ONE
    for words in ((f"--start={word}", f"--frames={word}"), ("--start", word, "--frames", word)):
        options = options_of(verb, [*needed, *words, "--stream", "1"], monkeypatch)
        assert (options.start, options.frames, options.stream) == (value, value, 1)
        assert type(options.start) is type(value)


@pytest.mark.parametrize(("word", "value"), [typed for typed in TYPED if typed[0] != "012"])  # a text in YAML
def test_a_file_of_options_says_the_same(
    word: str, value: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(f"start: {word}\nframes: {word}\naudio: drop\nstream: 2\nfps: 1e1\n", encoding="utf-8")
    options = options_of("edit", ["--config", str(config)], monkeypatch)
    assert (options.start, options.frames, options.audio, options.stream) == (value, value, "drop", 2)
    assert options.fps == 10
    config.write_text("frames: null\n", encoding="utf-8")
    assert options_of("edit", [f"--config={config}"], monkeypatch).frames is None
    assert options_of("edit", ["--frames", "8", "--frames", "null"], monkeypatch).frames is None


NO_TIMES = [
    "12.5",
    "1e3",
    "1:60",
    "1:60:00",
    "00:01:02.5s",
    "0x10",
    "1_000",
    "noon",
    "",
    "\N{ARABIC-INDIC DIGIT ONE}s",
    "-1s",
    "1h",
    "9" * 50,
]


@pytest.mark.parametrize("word", NO_TIMES)
def test_no_time_is_one_sentence(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "is neither a whole number nor a time such as 12.5s, 01:02.5 or 00:01:02.5"
    for option in ("--start", "--frames"):
        for verb, needed in (("edit", ONE), ("tune", ("--clip=a.mp4", "--prompt=a cat"))):
            with pytest.raises(UserError, match=f"^{option}: .* {says}"):
                options_of(verb, [*needed, f"{option}={word}"], monkeypatch)
    config = tmp_path / "options.yaml"
    config.write_text(f"start: '{word}'\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"^--start: .* {says}"):
        options_of("edit", ["--config", str(config)], monkeypatch)
    for name, text in manifests_of({"start": word}).items():
        if name == "m.csv" and not word:
            continue  # an empty cell is the default
        with pytest.raises(UserError, match=rf"{name}, (line \d|entry 1), field 'start'.*{says}") as caught:
            read_manifest(written(tmp_path, name, text))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["12.5", "[1, 2]", "true", "{a: 1}"])
def test_what_is_no_text_in_a_file_of_options_is_one_sentence_too(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(f"frames: {value}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^--frames: .* is neither a whole number nor a time"):
        options_of("edit", ["--config", str(config)], monkeypatch)


def test_a_mistyped_time_ends_the_command_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", *ONE, "--start", "1:75"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fatezero: --start: '1:75' is neither")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("12.5s", 12.5), ("0s", 0), ("90s", 90), (" 5s ", 5), ("01:02.5", 62.5), ("90:00", 5400)),
        *(("00:01:02.5", 62.5), ("1:02:03", 3723), ("100:00:00.001", 360_000.001)),
    ],
)
def test_times_in_seconds(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, abs=1e-9)


def manifests_of(clip: Mapping[str, Any]) -> dict[str, str]:
    """One edit of a clip with these fields, in every form of a manifest."""
    edit = {**EDIT, "clip": {"path": "a.mp4", **clip}}
    row = {**EDIT, **clip}
    return {
        "m.json": json.dumps([edit]),
        "m.jsonl": json.dumps(edit),
        "m.yaml": json.dumps({"edits": [edit]}),
        "m.csv": f"{','.join(row)}\n{','.join(map(str, row.values()))}\n",
    }


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("start", "frames"), [(30, 8), ("12.5s", "2s"), ("00:01:02.5", 8), ("1:02", "1:00"), (7, "3s")]
)
def test_every_manifest_states_ranges_streams_and_sound(start: int | str, frames: int | str, tmp_path: Path) -> None:
    stated = {"start": start, "frames": frames, "stream": 1, "audio": "drop"}
    for name, text in manifests_of(stated).items():
        (request,) = read_manifest(written(tmp_path, name, text)).requests
        assert request.clip == ClipSpec(
            path=str(tmp_path / "a.mp4"), start=start, frames=frames, stream=1, audio="drop"
        ), name


def test_times_need_no_quotes_in_yaml(tmp_path: Path) -> None:
    text = (
        "edits:\n- id: one\n  clip: {path: a.mp4, start: 00:01:02.5, frames: 1:02}\n  source_prompt: a\n"
        "  target_prompt: b\n"
    )
    clip = read_manifest(written(tmp_path, "m.yaml", text)).requests[0].clip
    assert (clip.start, clip.frames) == ("00:01:02.5", "1:02")


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        ({"start": "30"}, "field 'start': '30' is neither"),
        ({"frames": 2.5}, "field 'frames': 2.5 is neither"),
        ({"frames": True}, "field 'frames': True is neither"),
        ({"start": None}, "field 'start': None is neither"),
        ({"stream": "first"}, "field 'stream': 'first' is not a whole number"),
        ({"stream": 0.5}, "field 'stream': 0.5 is not a whole number"),
        ({"audio": "mute"}, "field 'audio': 'mute' is neither 'keep' nor 'drop'"),
        ({"audio": True}, "field 'audio': True is not a text"),
    ],
)
def test_odd_selections_in_json_are_told_with_their_field(clip: Mapping[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"m\.json, entry 1, {says}"):
        read_manifest(written(tmp_path, "m.json", manifests_of(clip)["m.json"]))


def test_records_keep_every_field_and_old_ones_are_read() -> None:
    clip = ClipSpec(path="a.mp4", start="1:02", frames="2s", stream=1, audio="drop", fps=12.5, fit="stretch", height=64)
    request = EditRequest(id="one", clip=clip, source_prompt="a", target_prompt="b")
    stated = request_to_json(request)
    assert request_from_json(json.loads(json.dumps(stated))) == request
    old = {**stated, "clip": {"path": "a.mp4", "start": 2, "frames": 8, "stride": 1, "fit": "crop"}}
    assert request_from_json(old).clip == ClipSpec(path="a.mp4", start=2, frames=8)


def test_the_command_line_fills_what_a_manifest_leaves_open(tmp_path: Path) -> None:
    edits = [
        {**EDIT, "id": "open"},
        {**EDIT, "id": "stated", "clip": {"path": "a.mp4", "start": "1s", "frames": 3, "stream": 0}},
        {**EDIT, "id": "silent", "clip": {"path": "a.mp4", "audio": "drop"}},
    ]
    manifest = written(tmp_path, "m.json", json.dumps(edits))
    path = str(tmp_path / "a.mp4")
    asked = EditOptions(manifest=str(manifest), start="2s", frames="4s", stream=1, audio="drop")
    given = ClipSpec(path=path, start="2s", frames="4s", stream=1, audio="drop")
    own = replace(given, start="1s", frames=3, stream=0)
    assert [request.clip for request in _requests(asked)] == [given, own, given]
    kept = [request.clip.audio for request in _requests(EditOptions(manifest=str(manifest)))]
    assert kept == ["keep", "keep", "drop"]


def test_a_tuning_takes_ranges_from_both_doors(tmp_path: Path) -> None:
    alone = TuningConfig(clip="a.mp4", prompt="a cat", start="1:02", frames="2s", stream=1)
    assert alone.spec == ClipSpec(path="a.mp4", start="1:02", frames="2s", stream=1)
    edits = [{**EDIT, "clip": {"path": "a.mp4", "start": "3s", "audio": "drop"}}]
    manifest = written(tmp_path, "m.json", json.dumps(edits))
    (one,) = _each_clip(TuningConfig(manifest=str(manifest), frames="2s", stream=1))
    assert one.spec == ClipSpec(path=str(tmp_path / "a.mp4"), start="3s", frames="2s", stream=1)


@pytest.fixture
def brightening(tmp_path: Path) -> Path:
    """Sixteen frames at 8 a second, each 12 levels brighter."""
    frames = np.repeat(np.arange(20, 212, 12, dtype=np.uint8), 32 * 32 * 3).reshape(16, 32, 32, 3)
    write_video(tmp_path / "clip.mp4", frames, 8)
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--start=0.5s", "--frames=0.25s"], [4, 5]),
        (["--start", "0:01", "--frames", "2"], [8, 9]),
        (["--start=00:00:01.75"], [14, 15]),
        (["--start=3", "--frames=0:00.5", "--stride=2"], [3, 5]),
    ],
)
def test_what_is_typed_is_what_is_read(
    words: Sequence[str], shown: Sequence[int], brightening: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of("edit", [f"--clip={brightening}", "--source=a", "--target=b", *words], monkeypatch)
    (request,) = _requests(options)
    values = read_clip(request.clip).frames.mean(axis=(1, 2, 3))
    assert [round((value - 20) / 12) for value in values] == shown


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"frames": "0s"}, "no frame begins within 0s from 0.000 s on"),
        ({"start": 5, "frames": "0.0001s"}, "no frame begins within 0.0001s from 0.625 s on"),
        ({"start": 50, "frames": "1s"}, "leaves 0 from frame 50 with stride 1, but 1s are asked for"),
        ({"start": "9s"}, "lasts 2.000 s, but it is to start at 9s"),
        ({"start": "1s", "frames": "9s"}, "but 9s from 1.000 s on are asked for"),
    ],
)
def test_a_range_without_frames_is_one_sentence(choice: Mapping[str, Any], says: str, brightening: Path) -> None:
    with pytest.raises(UserError, match=says):
        read_clip(ClipSpec(path=str(brightening), **choice))


def test_scores_are_told_apart_by_stream_and_not_by_sound(brightening: Path) -> None:
    def digest(**choice: Any) -> str:
        clip = ClipSpec(path=str(brightening), **choice)
        return edit_digest(EditRequest(id="one", clip=clip, source_prompt="a", target_prompt="b"))

    assert digest(audio="drop") == digest()
    assert len({digest(), digest(stream=0), digest(start="0.5s"), digest(frames="0.5s")}) == 4


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({}, "b/c.mp4"),
        ({"start": 3}, "b/c.mp4@3"),
        ({"stream": 1}, "b/c.mp4#1"),
        ({"start": "2s", "stream": 0}, "b/c.mp4#0@2s"),
    ],
)
def test_names_of_clips_say_where_they_begin(choice: Mapping[str, Any], name: str) -> None:
    assert clip_name(ClipSpec(path="a/b/c.mp4", **choice)) == name


def test_dates_and_tagged_words_stay_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--id", "2024-01-01", "--source", "a cat:", "--target", "1:02", "--edited-words", "1:02", "12"]
    options = options_of("edit", words, monkeypatch)
    assert (options.id, options.source, options.target) == ("2024-01-01", "a cat:", "1:02")
    assert options.edited_words == ("1:02", "12")
