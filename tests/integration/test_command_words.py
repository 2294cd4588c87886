"""What the command line answers to words: help that says all, and one short sentence for what it does not take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fatezero.cli import SECTIONS, VERBS, main
from fatezero.commands.option_words import gathered
from fatezero.commands.parsing import parse, parser_of
from fatezero.commands.verbs import Verb, chosen, kinds_of, places_of
from fatezero.config import MethodConfig


def verbs() -> Iterator[tuple[list[str], Verb]]:
    for name, verb in VERBS.items():
        yield from ([([name, inner], one) for inner, one in verb.verbs.items()] if verb.verbs else [([name], verb)])


def page_of(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "verb"), list(verbs()), ids=lambda value: "-".join(value) if isinstance(value, list) else ""
)
def test_a_page_lists_every_option_once(
    words: list[str], verb: Verb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(words, capsys, monkeypatch)
    assert not [line for line in page.splitlines() if len(line) > 79 and " " in line.strip()]  # a path may be longer
    listed = re.findall(r"^  --(?:no-)?([a-z][\w.-]*)", page, re.M)
    parts = {name.partition(".")[0] for name in listed if "." in name}
    asked = (
        {name.replace("_", "-") for name in kinds_of(verb)}
        - parts
        - {place.replace("_", "-") for place in places_of(verb)}
    )
    assert len(listed) == len({*listed})
    assert asked <= {*listed}
    assert {*listed} - asked <= {"config", "print-config", "help"}
    assert not re.search(r"--\w*_", page)


def test_what_most_look_for_comes_first_and_examples_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(["edit"], capsys, monkeypatch)
    places = [page.index(text) for text in ("\n  --clip", "\n  --steps", "\n  --out", "\n  --stride", "\nExamples:")]
    assert places == sorted(places)
    assert "(default 10)" in page  # of the shipped model, which recommends 10 steps


def test_every_verb_stands_in_one_section() -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(VERBS)


def examples() -> list[str]:
    text = "\n".join(verb.function.__doc__ or "" for _, verb in verbs())
    return re.findall(r"^ +(fatezero .*)$", text.replace("\\\n", " "), re.M)


@pytest.mark.parametrize("example", examples())
def test_examples_are_commands(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert parsed(shlex.split(example)[1:])


def parsed(words: list[str]) -> Any:
    verb = chosen(VERBS, words)
    assert verb is not None
    names = words[: 2 if VERBS[words[0]].verbs else 1]
    words = gathered(verb, words, "fatezero")
    return parse(parser_of(verb, names, MethodConfig()), words, verb, "fatezero")[names[0]]


def test_options_are_written_as_people_write_them() -> None:
    words = "edit --redo --no-fusion --no-prompt-weights --blending.mask-blocks 1 2 --guidance-window 0 0.5"
    options = parsed([*words.split(), "--edited-words", "red car", "bus", "--key_frames", "self", "-1"])
    assert (options.redo, options.fusion, options.prompt_weights) == (True, None, False)
    assert options.blending.mask_blocks == (1, 2)
    assert options.guidance_window == (0, 0.5)
    assert options.edited_words == ("red car", "bus")
    assert options.key_frames == ("self", -1)
    assert parsed(["edit", "--no-blending.self_attention"]).blending.self_attention is False
    assert parsed(["edit", "--blending.latent-window", "0.5", "1"]).blending.latent_window == (0.5, 1)
    assert parsed(["edit", "--blending.latent-window", "null"]).blending.latent_window is None
    words = "edit --fusion.word-windows.bus 0 0.5 --fusion.word-windows.red=[0,1] --fusion.reweight.red 2"
    fusion = parsed(words.split()).fusion
    assert (fusion.word_windows, fusion.reweight) == ({"bus": (0, 0.5), "red": (0, 1)}, {"red": 2})


@pytest.mark.parametrize(
    ("line", "begun", "offered"),
    [
        ("fatezero ed", "ed", ["edit"]),
        ("fatezero train vi", "vi", ["video-autoencoder", "video-latents", "video-report"]),
        ("fatezero edit --blending.la", "--blending.la", ["--blending.latent-window", "--blending.latent-words"]),
        ("fatezero edit --no-fusion.", "--no-fusion.", ["--no-fusion.temporal"]),
        ("fatezero edit --store d", "d", ["device", "disk"]),
        ("fatezero edit --clip ", "", [""]),
    ],
)
def test_a_shell_is_told_what_may_follow(
    line: str, begun: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["--complete", "fatezero", begun, line.rsplit(maxsplit=1)[-1]]) == 0
    assert capsys.readouterr().out.splitlines() == offered


MISTAKES = {
    "edti": "fatezero has no edti; did you mean edit?",
    "train clpi": "fatezero train has no clpi; did you mean clip?",
    "edit --edited-word jeep": "fatezero edit has no option --edited-word; did you mean --edited-words?",
    "edit --blending.treshold 1": "fatezero edit has no option --blending.treshold; did you mean --blending.threshold?",
    "edit --threshold=1": "fatezero edit has no option --threshold; did you mean --blending.threshold?",
    "edit --version": "fatezero edit has no option --version; fatezero edit --help lists what there is.",
    "edit --nonsense": "fatezero edit has no option --nonsense; fatezero edit --help lists what there is.",
    "edit --steps many": "--steps is 'many': it is a whole number.",
    "edit --steps": "--steps is given without a value: it is a whole number.",
    "edit --blending.threshold high": "--blending.threshold is 'high': it is a number.",
    "edit --fusion.self_window 3": "--fusion.self-window is '3': it is 2 values such as '[0, 0.5]', each a number.",
    "edit --backend foo": "--backend is 'foo': it is auto, recompute, qk or maps.",
    "edit --redo=maybe": "--redo is 'maybe': it is true or false.",
    "edit clip.mp4": "fatezero edit has no use for 'clip.mp4'; fatezero edit --help says what it takes.",
    "status": "fatezero status needs RUN; fatezero status --help says more.",
    "invert": "fatezero invert needs --manifest; fatezero invert --help says more.",
    "invert --clip X": "fatezero invert has no option --clip; fatezero invert --help lists what there is.",
    "cache lss here": "ACTION is 'lss': it is ls, verify or prune.",
    "edit --config F": "F, line 2: fatezero edit has no option blending.treshold; did you mean blending.threshold?",
}


def test_an_edit_of_the_shipped_clip_is_read_as_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    for words, field in ((["--seed=-1"], "seed"), (["--id=a\nb"], "id")):
        assert main(["edit", "--target", "a bus", "--dry-run", *words]) == 1
        assert f"the command line, request, field '{field}'" in capsys.readouterr().err


@pytest.mark.parametrize("typed", MISTAKES)
def test_words_that_are_not_taken_are_one_sentence(
    typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("blending:\n  treshold: 0.5\n", encoding="utf-8")
    assert main([str(file) if word == "F" else word for word in typed.split()]) == 2
    assert capsys.readouterr().err == f"fatezero: {MISTAKES[typed].replace('F,', f'{file},')}\n"
