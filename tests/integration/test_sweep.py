"""Settings in dotted names change those fields alone, and a W&B sweep gets the variant that it asks for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fatezero.cli import VERBS, main
from fatezero.commands.option_words import gathered
from fatezero.commands.parsing import parse, parser_of
from fatezero.commands.verbs import chosen
from fatezero.config import MethodConfig
from fatezero.errors import UserError
from fatezero.runs.variants import Variant, make_variants
from tests.eval.test_tracking import read_back

RECIPE = Path(__file__).parents[2] / "experiments" / "sweep.yaml"
BASE = MethodConfig(steps=7)


def variants_of(*words: str) -> dict[str, Variant]:
    """What `fatezero ablate` with these words would compare."""
    asked = ["ablate", *words]
    verb = chosen(VERBS, asked)
    assert verb is not None
    asked = gathered(verb, asked, "fatezero ablate")
    options = parse(parser_of(verb, ["ablate"], BASE), asked, verb, "fatezero ablate")["ablate"]
    return make_variants(options.variants, options.sweep, BASE)


ONLY_FULL = '--variants={"full": {}}'


@pytest.mark.parametrize(
    "words",
    [
        (ONLY_FULL, "--sweep.blending.threshold=0.35"),
        (ONLY_FULL, "--sweep.blending.threshold", "0.35"),
        (ONLY_FULL, "--sweep", '{"blending.threshold": 0.35}'),
        (ONLY_FULL, '--sweep={"blending": {"threshold": [0.35]}}'),
        ('--variants={"full": {}, "other": {"blending.threshold": 0.35}}',),
        ('--variants={"full": {}, "other": {"blending": {"threshold": 0.35}}}',),
        ("--config={file}",),
    ],
)
def test_a_dotted_setting_changes_that_field_alone(words: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("variants: {full: {}}\nsweep:\n  blending:\n    threshold: [0.35]\n", encoding="utf-8")
    made = variants_of(*(word.replace("{file}", str(file)) for word in words))
    assert len(made) == 2
    full, other = made.values()
    assert full.method == BASE
    assert other.settings == {"blending.threshold": 0.35}
    assert BASE.blending is not None
    assert other.method.blending is not None
    assert vars(other.method.blending) == {**vars(BASE.blending), "threshold": 0.35}
    assert {**vars(other.method), "blending": None} == {**vars(BASE), "blending": None}


def test_two_swept_fields_of_one_group_are_a_grid() -> None:
    made = variants_of(ONLY_FULL, "--sweep.blending.threshold=[0.1, 0.2]", "--sweep.blending.mask_downsampling=8")
    assert [variant.settings for variant in list(made.values())[1:]] == [
        {"blending.threshold": 0.1, "blending.mask_downsampling": 8},
        {"blending.threshold": 0.2, "blending.mask_downsampling": 8},
    ]


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ({"blending.treshold": 0.35}, "no setting 'blending.treshold'; did you mean blending.threshold?"),
        ({"blending": {"treshold": 0.35}}, "no setting 'blending.treshold'; did you mean blending.threshold?"),
        ({"no.such.field": 1}, "no setting 'no.such.field'; settings are MethodConfig's fields."),
        ({"blending": 0.35}, "blending is 0.35; it is a mapping of its fields, or null."),
    ],
)
def test_a_setting_that_does_not_exist_is_named(sweep: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        make_variants({"full": {}}, sweep, BASE)


@pytest.mark.slow
def test_the_agent_of_a_sweep_gets_its_variants_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped recipe's command, with the words and the environment that an agent gives it."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    asked = {name: stated["values"][-1] for name, stated in recipe["parameters"].items()}
    program, *words = [word.replace("${args_json}", json.dumps(asked)) for word in recipe["command"]]
    assert program == "fatezero"
    elsewhere = ("--manifest=", "--out=", "--categories=", "--wandb=")  # the project's own few edits, in little time
    words = [word for word in words if not word.startswith(elsewhere)]
    for name, value in {"SWEEP_ID": "abc", "RUN_ID": "agents-own", "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path))
    run = tmp_path / "run"
    more = {"out": run, "wandb": "offline", "categories": "shape", "edits": 1, "frames": 2, "steps": 2, "device": "cpu"}
    given = [f"--{name}={value}" for name, value in more.items()]
    assert main([*words, *given, "--metrics", recipe["metric"]["name"].partition("@")[0]]) == 0
    ((name, logged),) = read_back(run).items()
    assert f"W&B's sweep has the numbers of {name}." in capsys.readouterr().out
    _, config, summary, *_ = logged
    (variant,) = make_variants({}, asked, BASE).values()
    assert config["settings"] == json.loads(json.dumps(dict(variant.settings)))
    assert config["config"]["blending"]["threshold"] == asked["blending.threshold"]
    scores = json.loads((run / "leaderboard.json").read_text(encoding="utf-8"))[0]["scores"]
    (own,) = (s["value"] for s in scores if (s["variant"], s["category"]) == (name, ""))
    assert summary[recipe["metric"]["name"]] == own
