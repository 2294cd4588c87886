"""Manifests that are damaged, or made to do harm: one sentence each, soon, with file, place and field."""

import json
import os
import random
import re

import pytest
import yaml

from fatezero.commands.datasets import check_manifest
from fatezero.commands.edit import _slug
from fatezero.data.entry import MAX_YAML
from fatezero.data.files import parse_json
from fatezero.data.layout import reserved_result_name, result_name
from fatezero.data.manifest import check_texts, read_manifest, request_from_json, request_to_json
from fatezero.errors import UserError, attempt
from fatezero.types import ClipSpec, EditRequest

EDIT = {"id": "one", "clip": "a.mp4", "source_prompt": "a cat", "target_prompt": "a dog"}
OWN = {
    "name": "trial",
    "edits": [
        {
            "id": "jeep.red-1",
            "clip": {"path": "a.mp4", "start": 2, "frames": 8, "stride": 3, "fps": 12.5, "height": 64, "fit": "crop"},
            "source_prompt": "a jeep on the road",
            "target_prompt": "a red jeep on the road",
            "edited_words": ["jeep"],
            "target_words": ["red", "jeep"],
            "category": "attribute",
            "seed": 7,
            "settings": {"fusion.cross_window": [0, 0.6], "blending": None},
            "truth": {"mask": "masks/jeep", "recipe": {"scene": {"object": "cat"}, "seed": 3}, "target": {"a": "b"}},
        },
        EDIT,
    ],
}
FATEZERO = {
    "dataset_config": {"path": "a", "prompt": "a silver jeep", "n_sample_frame": 8, "offset": {"left": 0}},
    "editing_config": {
        "guidance_scale": 9,
        "editing_prompts": ["a silver jeep", "a Porsche car"],
        "p2p_config": {
            0: {"cross_replace_steps": {"default_": 0.8}, "self_replace_steps": 0.9},
            1: {
                "cross_replace_steps": {"default_": 0.5, "Porsche": [0.1, 0.5]},
                "self_replace_steps": 0.5,
                "eq_params": {"words": ["Porsche"], "values": [10]},
                "blend_words": [["silver"], ["Porsche"]],
                "blend_self_attention": True,
                "blend_latents": True,
                "blend_th": [0.3, 0.3],
            },
        },
        "num_inference_steps": 50,
    },
    "model_config": {"SparseCausalAttention_index": ["mid"], "least_sc_channel": 640},
    "seed": 3,
}
BENCH = {"swan": {"path": "a", "source": "a swan", "target": "a duck", "sampling_rate": 2}}
V2VBENCH = {"data": [{"video_id": "hike", "prompt": "a man", "edit": [{"prompt": "a woman", "task": "style"}]}]}
PIE = {
    "7": {
        "image_path": "a.jpg",
        "original_prompt": "a [cat]",
        "editing_prompt": "a [dog]",
        "editing_type_id": "1",
        "blended_word": "cat dog",
        "mask": [0, 9],
    }
}
TUNE_A_VIDEO = {
    "train_data": {"video_path": "d/x.mp4", "prompt": "a", "width": 8, "height": 8, "n_sample_frames": 2},
    "validation_data": {"prompts": ["x"]},
    "seed": 3,
}
FIVE = [
    {"video_name": "bus", "save_dir": "1", "source_prompt": "a [b]", "target_prompt": "[d]", "editing_type_id": 1}
] * 2
IVEBENCH = [
    {
        "id": 7,
        "src_video_name": "d.mp4",
        "category": "s",
        "source_prompt": "a",
        "edit_prompt": "e",
        "target_prompt": "b",
    }
]
UNIEDIT = [
    {"id": "0", "path": "./U/1.mp4", "target_prompt": "b", "edited_prompt": "c", "edit_type": "add", "edit_path": "o"}
]
EDITVERSE = {"0": {"<text>": "<video1> x", "<video1>": "videos/1.mp4", "target_prompt": "t", "type": "a"}}
VBENCH = {"a.mp4": "x", "b.mp4": "y"}
OPENVE = "edited_type,prompt,original_video,edited_result_path\nlocal_add,Add,O/videos/0.mp4,out/x.mp4\n"
EDITBOARD = (
    "original_video_path,edited_video_path,semantic_mask_path,source_prompt,target_prompt\n"
    "./s/bear,./a/bear,./s/m,a,c\n./s/bear,./b/bear,./s/m,a,c\n"
)
CSV = 'id,clip,frames,fps,source_prompt,target_prompt,edited_words,seed\none,a.mp4,8,12.5,a cat,"a dog, asleep",cat,3\n'
TGVE = (
    "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,"
    "Multiple Changes Caption\nDAVIS Videos:,,,,,\ngold-fish,A goldfish swims.,A,B,C,D\n"
)


def refused(path):
    """The one sentence that is said of a manifest."""
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 1000
    return message


def written(folder, values, name="m.yaml"):
    (folder / name).write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return folder / name


def with_aliases(last):
    """Thirty lists of nine times the one before, and a line that uses the last."""
    grown = (f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    return "a0: &a0 [x]\n" + "".join(grown) + last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (with_aliases("edits: *a29\n"), "has more than 500000 values, its aliases followed"),
        (
            "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1}, ' * 9}]}}\n" for i in range(1, 30)),
            "has more than 500000 values, its aliases followed",
        ),
        (with_aliases("? *a29\n: 1\n"), "values, its aliases followed|no name of a field"),
        (with_aliases("edits: !!int [*a29]\n"), "values, its aliases followed|not YAML of plain values (int)"),
        ("a0: &a0 [x]\nedits: !!float {b: *a0}\n", "line 2, field 'edits': not YAML of plain values (float)"),
        ("edits: &edits [*edits]\n", "line 1: values are nested too deeply, or hold themselves"),
        ("edits: &edits {<<: *edits}\n", "line 1: values are nested too deeply, or hold themselves"),
        ("edits: [" + "[" * 150 + "]" * 151, "nested too deeply"),
        ("- " * 5000 + "x", "nested too deeply"),
        ("? [a, b]\n: 1\n", "line 1: a list or mapping is no name of a field"),
        ("#" * (MAX_YAML + 1), f"more than {MAX_YAML} bytes"),
        ('edits: "\\UFFFFFFFF"', "not YAML"),
        ('edits: "\\U00110000"', "not YAML"),
    ],
)
def test_yaml_that_grows(tmp_path, text, says):
    message = refused(written(tmp_path, text))
    assert any(part in message for part in says.split("|"))


@pytest.mark.slow
def test_files_that_are_too_large_or_no_files(tmp_path):
    for name in ("m.json", "m.jsonl", "m.csv"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(65 << 20)
        assert "has more than 67108864 bytes" in refused(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe.yaml")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    assert "neither a file nor a folder" in refused(tmp_path / "zero.json")


VALUES_OF_YAML = [
    ("frames", ".nan", "'.nan' is too large, or no number"),
    ("fps", ".inf", "'.inf' is too large, or no number"),
    ("frames", "9" * 400, "is too large, or no number"),
    ("frames", "!!int 0x" + "f" * 6000, "is too large, or no number"),
    ("fps", "1.0e+999", "is too large, or no number"),
    ("frames", "!!int ''", "'' is too large, or no number"),
    ("frames", "!!float x", "'x' is too large, or no number"),
    ("frames", "!!bool x", "'x' is too large, or no number"),
    ("path", "2024-01-01", "not YAML of plain values (timestamp)"),
    ("path", "!!timestamp x", "not YAML of plain values (timestamp)"),
    ("path", "!!binary aGk=", "not YAML of plain values (binary)"),
    ("path", "!!set {a, b}", "not YAML of plain values (set)"),
    ("path", "!!omap [a: 1]", "not YAML of plain values (omap)"),
    ("path", "!!python/name:os.system x", "not YAML of plain values (python/name:os.system)"),
    ("path", "!mine x", "not YAML of plain values (!mine)"),
    ("2024-01-01", "x", "not YAML of plain values (timestamp)"),
    (".nan", "x", "'.nan' is too large, or no number"),
]


@pytest.mark.parametrize(("name", "value", "says"), VALUES_OF_YAML)
def test_values_that_are_not_plain_are_told_with_their_line(tmp_path, name, value, says):
    path = written(tmp_path, f"edits:\n  - id: one\n    clip:\n      {name}: {value}\n")
    message = refused(path)
    assert message.startswith(f"{path}, line 4, field ")
    assert says in message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000])
def test_numbers_that_are_none_are_refused_in_json(tmp_path, number):
    text = json.dumps([{**EDIT, "seed": 1}]).replace('"seed": 1', f'"seed": {number}')
    assert "is no number" in refused(written(tmp_path, text, "m.json"))
    assert "line 2: not JSON of plain values" in refused(written(tmp_path, "\n" + text[1:-1], "m.jsonl"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clip": {"path": "a.mp4", "frames": 2**63}}, "is too large, or no number"),
        ({"clip": {"path": "a.mp4", "fps": -(2**63)}}, "is too large, or no number"),
        ({"clip": {"path": "x" * 50_000, "frames": []}}, "field 'frames': [] is neither a whole number nor a time"),
        ({"edited_words": ""}, "field 'edited_words': '' is not a list"),
        ({"settings": []}, "field 'settings': [] is not a mapping"),
        ({"settings": {"a": {"b": "\ud800"}}, "truth": 0}, "field 'truth': 0 is not a mapping"),
        ({"truth": []}, "field 'truth': [] is not a mapping"),
        ({"truth": {"clip": ["a"]}}, "field 'clip': ['a'] is not a text"),
        ({"truth": {"mask": 3}}, "field 'mask': 3 is not a text"),
        ({"truth": {"flow": {"a": "b"}}}, "field 'flow': {'a': 'b'} is not a text"),
        ({"truth": {"recipe": "cat"}}, "field 'recipe': 'cat' is not a mapping"),
        ({"truth": {"recipe": []}}, "field 'recipe': [] is not a mapping"),
        ({"truth": {"recipe": {}}}, "field 'recipe': is empty"),
        ({"truth": {"target": 3}}, "field 'target': 3 is not a mapping"),
        ({"truth": {"mask_rle": ["a"]}}, "field 'mask_rle': ['a'] is not a list of whole numbers"),
        ({"truth": {"mask_rle": [0, 1], "mask": "m"}}, "field 'mask_rle': stands beside mask"),
        ({"truth": {"mask_rle": 7}}, "field 'mask_rle': 7 is not a list of whole numbers"),
    ],
)
def test_odd_fields_are_told_by_entry_and_name(tmp_path, changes, says):
    for name in ("m.json", "m.yaml", "m.jsonl"):
        text = json.dumps({**EDIT, **changes})
        message = refused(written(tmp_path, text if name == "m.jsonl" else f"[{text}]", name))
        assert says in message
        assert ", line 1, " in message or ", entry 1, " in message


def test_names_that_are_no_texts(tmp_path):
    for field in ("truth", "settings"):
        path = written(
            tmp_path, f"edits:\n- {{id: a, clip: b, source_prompt: c, target_prompt: d, {field}: {{1: 2}}}}\n"
        )
        assert f"field '{field}': {{1: 2}} must be texts, numbers, lists or mappings under names" in refused(path)
    assert "field 'None': unknown" in refused(written(tmp_path, "edits:\n- {id: a, clip: b, null: 3}\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CSV.replace("a cat", "a" * 200_000), "not CSV (field larger than field limit"),
        (CSV.replace("seed", "id"), "line 1: the column 'id' stands there twice"),
        (CSV.replace("12.5", "nan"), "line 2, field 'fps': nan is too large, or no number"),
        (CSV.replace("12.5", "1e999"), "line 2, field 'fps': inf is too large, or no number"),
        (CSV.replace(",8,", f",{'9' * 5000},"), "line 2, field 'frames'"),
        (CSV.replace(",8,", f",{2**80},"), "line 2, field 'frames': 1208925819614629174706176 is too large"),
        (CSV.replace('asleep"', "asleep"), "not CSV"),
    ],
)
def test_csv_that_is_damaged(tmp_path, text, says):
    assert says in refused(written(tmp_path, text, "m.csv"))


def changed(values, *path, to):
    """A copy with one value replaced."""
    copy = list(values) if isinstance(values, list) else dict(values)
    copy[path[0]] = changed(values[path[0]], *path[1:], to=to) if len(path) > 1 else to
    return copy


P2P = ("editing_config", "p2p_config", 1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (changed(FATEZERO, "model_config", "SparseCausalAttention_index", to=[[1]]), "is not a list of key frames"),
        (changed(FATEZERO, *P2P, "blend_th", to=[]), "field 'blend_th': [] is not a number"),
        (changed(FATEZERO, *P2P, "blend_th", to="x"), "field 'blend_th': 'x' is not a number"),
        (changed(FATEZERO, "dataset_config", "prompt", to=[]), "field 'prompt': [] is not a text"),
        (changed(V2VBENCH, "data", 0, "video_id", to="x" * 5000), "longer than 1000 characters"),
        (changed(V2VBENCH, "data", 0, "video_id", to="\0"), "is not a path of a local file"),
        (changed(PIE, "7", "mask", to="x"), "field 'mask_rle': 'x' is not a list of whole numbers"),
        (changed(PIE, "7", "image_path", to="\0"), "is not a path of a local file"),
        (changed(BENCH, "swan", "path", to={}), "field 'path': {} is not a text"),
    ],
)
def test_odd_values_of_benchmarks(tmp_path, values, says):
    (tmp_path / "m.yaml").write_text(yaml.dump(values), encoding="utf-8")
    assert says in refused(tmp_path / "m.yaml")


def test_paths_of_benchmarks_that_name_nothing_or_lead_out(tmp_path):
    for path, says in (
        ("/", "leads out of"),
        ("../x", "leads out of"),
        ("/etc/passwd", "leads out of"),
        ("", "field 'clip': missing"),
    ):
        values = [{"id": "1", "path": path, "target_prompt": "b", "edit_type": "add"}]
        assert says in refused(written(tmp_path, values, "m.json"))
    for result in ("", ".", "../x", "~/x", 3, [], ["a", None], None):
        assert "field 'video'" in refused(written(tmp_path, [{**EDIT, "video": result}], "m.json"))


def test_a_path_that_no_disk_takes_is_told_with_its_edit(tmp_path):
    path = written(tmp_path, changed(TUNE_A_VIDEO, "train_data", "video_path", to="x" * 900))
    (sentences,) = check_manifest(path).problems.values()
    assert "cannot be opened" in sentences[0]


def test_a_benchmarks_own_field_is_no_note_of_ours(tmp_path):
    for stated in (5, "word", None, {"a": 1}):
        manifest = read_manifest(written(tmp_path, changed(V2VBENCH, "data", 0, "edit", 0, "ignored", to=stated)))
        assert manifest.notes == ()


@pytest.mark.parametrize("name", [*EDIT, "category", "settings", "truth", "edited_words", "seed", "extra"])
def test_long_values_are_not_repeated(tmp_path, name):
    for value in ("\u202e" * 50_000, ["x"] * 50_000, {"x" * 50_000: "y"}):
        refused(written(tmp_path, [{**EDIT, "seed": "so that it fails", name: value}], "m.json"))
    refused(written(tmp_path, [{**EDIT, "x" * 50_000: 1}], "m.json"))


# Ids.

TAKEN = ["plan.json", "PLAN.JSON", "x.failed.json", "x.failed.log", "x.lock", "x.partial", "x.pieces", "x.old"]


@pytest.mark.parametrize(
    "name", [*TAKEN, ".hidden", "..", "a/b", "a\\b", "x" * 129, "a cat, asleep", "con/", "猫", "@"]
)
def test_ids_may_be_any_text_and_folders_are_safe(tmp_path, name):
    (request,) = read_manifest(written(tmp_path, [{**EDIT, "id": name}], "m.json")).requests
    folder = result_name(request.id)
    assert request.id == name
    assert folder != name
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", folder)
    assert not reserved_result_name(folder)
    assert result_name(folder) == folder


def test_folders_of_ids_that_look_alike_are_told_apart(tmp_path):
    names = ["a b", "a/b", "a-b", "a  b", "a,b"]
    read = read_manifest(written(tmp_path, [{**EDIT, "id": name} for name in names], "m.json")).requests
    assert len({result_name(request.id) for request in read}) == len(names)
    twin = [{**EDIT, "id": name} for name in ("a b", result_name("a b"))]
    assert "entry 2, field 'id'" in refused(written(tmp_path, twin, "m.json"))


@pytest.mark.parametrize("name", ["x" * 1001, "\x1b[2J", "\ud800"])
def test_ids_that_no_record_can_hold(tmp_path, name):
    assert "field 'id'" in refused(written(tmp_path, [{**EDIT, "id": name}], "m.json"))
    with pytest.raises(UserError, match="field 'id'"):
        request_from_json({**EDIT, "id": name}, "the command line")


def test_ids_that_are_fine(tmp_path):
    names = ["x" * 128, "plan", "x.failed", "json", "jeep.0", "a.b.c", "x.mp4", "1.5"]
    assert not any(reserved_result_name(name) for name in names)
    edits = [{**EDIT, "id": name} for name in names]
    assert [request.id for request in read_manifest(written(tmp_path, edits, "m.json")).requests] == names


def test_ids_may_not_differ_in_capitals_alone(tmp_path):
    path = written(tmp_path, [{**EDIT, "id": name} for name in ("Cat", "dog", "cAT")], "m.json")
    assert "entry 3, field 'id': 'cAT' is taken by the earlier 'Cat'" in refused(path)


def test_ids_made_of_clip_and_target_tell_targets_apart():
    assert _slug("jeep-a red car, at night") == "jeep-a-red-car-at-night"
    alike = ["a-吉普车", "a-汽车", "a-é", "a-è", "x" * 200, "x" * 200 + "y", "x" * 80 + " y", "!!!", "???", "a-\ud800"]
    slugs = [_slug(text) for text in alike]
    assert len(set(slugs)) == len(alike)
    for slug in slugs:
        assert request_from_json({**EDIT, "id": slug}).id == slug
    assert _slug("a-吉普车") == _slug("a-吉普车")


# Texts of one edit.


@pytest.mark.parametrize("text", ["a \ud800 cat", "a \0 cat", "a \x1b[31m cat", "a\rcat", "a \x85 cat"])
def test_texts_that_cannot_be_written_are_a_fault_of_their_edit_alone(tmp_path, text):
    odd = {
        "source_prompt": text,
        "target_prompt": text,
        "edited_words": [text],
        "target_words": [text],
        "category": text,
    }
    edits = [{**EDIT, "id": name, name: value} for name, value in odd.items()]
    manifest = read_manifest(written(tmp_path, [EDIT, *edits], "m.json"))
    fine, *others = manifest.requests
    check_texts(fine)
    for request in others:
        with pytest.raises(
            UserError, match=rf"edit {request.id}, field '{request.id}': it holds the character '\\"
        ) as e:
            check_texts(request)
        assert str(e.value).isprintable()


def test_texts_of_every_language_and_settings_can_be_written():
    request = EditRequest(
        id="a",
        clip=ClipSpec(path="a.mp4"),
        source_prompt="ein Kätzchen\tund\n猫 🐈‍⬛",
        target_prompt="قطة \u202b",
        settings={"fusion.reweight": {"猫": 2.0}},
    )
    check_texts(request)
    with pytest.raises(UserError, match="field 'settings'"):
        check_texts(EditRequest(**{**vars(request), "settings": {"\udcff": 1}}))


@pytest.mark.parametrize("name", ["edited_words", "target_words"])
def test_a_bare_text_is_no_list_of_words(name):
    with pytest.raises(UserError, match=rf"{name} is the text 'silver jeep'.*write \('silver', 'jeep'\)\."):
        EditRequest(id="a", clip=ClipSpec(path="a.mp4"), source_prompt="", target_prompt="", **{name: "silver jeep"})
    with pytest.raises(UserError, match=rf"field '{name}'"):
        request_from_json({**EDIT, name: "jeep"})


def test_a_name_that_stands_twice_is_found_among_many():
    """It took minutes when each name was looked for among all."""
    text = "{" + ", ".join(f'"k{number}": 0' for number in range(100_000)) + ', "k99999": 1}'
    with pytest.raises(ValueError, match="'k99999' stands there twice"):
        parse_json(text)


# Everything, changed at random.

ODD = [
    *(None, True, 0, -1, 10**12, 10**400, 2**63, 1.5, 1e308, "", "x", "a" * 50_000, "\ud800", "\0", "a\nb", "../x"),
    *(
        ".",
        "..",
        "plan.json",
        "1",
        [],
        [[]],
        [1],
        ["a"],
        [[1]],
        [None],
        [["a"], ["b"]],
        {},
        {"a": 1},
        {"a": {"b": [{}]}},
    ),
    *([0.5, 0.2], "2024-01-01", float("nan"), float("inf")),
]
TOKENS = ["\0", ":", "- ", "[", "]", "{", "}", "*a", "&a ", "<<: ", "!!int ", "!!set ", "!!binary ", "!!timestamp x"]
TOKENS += ["!!bool x", "!!float ''", "!!omap ", "? ", "|", "'", '"', "\t", "\n", ".nan", "1e999", "NaN", "9" * 5000]
TOKENS += ["0x" + "f" * 400, "~", "#", "%", "@", ",", "2024-99-99", "\\ud800", "\ufeff", "é", "!x "]


def places(values, path=()):
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(values, dice):
    return changed(values, *dice.choice(list(places(values))), to=dice.choice(ODD))


def spoilt(text, dice):
    at, end = dice.randrange(len(text)), dice.randrange(1, 30)
    return text[:at] + dice.choice(TOKENS) + text[at:] if dice.random() < 0.7 else text[:at] + text[at + end :]


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [OWN, FATEZERO, BENCH, V2VBENCH, PIE, TUNE_A_VIDEO, FIVE, IVEBENCH, UNIEDIT, EDITVERSE, VBENCH],
    ids=["own", "fatezero", "bench", "v2v", "pie", "tune", "five", "ive", "uniedit", "editverse", "vbench"],
)
def test_any_change_leaves_a_manifest_or_a_sentence(tmp_path, values):
    dice = random.Random(0)
    text = yaml.dump(values)
    for _ in range(60):
        odd = mutated(values, dice)
        (tmp_path / "m.yaml").write_text(yaml.dump(odd), encoding="utf-8", errors="surrogatepass")
        (tmp_path / "m.json").write_text(json.dumps(odd), encoding="utf-8")
        (tmp_path / "n.yaml").write_text(spoilt(text, dice), encoding="utf-8")
        (tmp_path / "n.json").write_text(spoilt(json.dumps(values), dice), encoding="utf-8")
        for name in ("m.yaml", "m.json", "n.yaml", "n.json"):
            plain_or_refused(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [CSV, TGVE, OPENVE, EDITBOARD, "\n".join(map(json.dumps, OWN["edits"])), json.dumps(UNIEDIT[0])],
    ids=["csv", "tgve", "openve", "editboard", "jsonl", "uniedit"],
)
def test_any_change_of_lines_leaves_a_manifest_or_a_sentence(tmp_path, text):
    dice = random.Random(0)
    path = tmp_path / ("m.jsonl" if text.startswith("{") else "m.csv")
    for _ in range(100):
        path.write_text(spoilt(text, dice), encoding="utf-8", newline="")
        plain_or_refused(path)


def plain_or_refused(path):
    """What is read can be written as JSON: every number is one."""
    manifest = attempt(lambda: read_manifest(path))
    if isinstance(manifest, UserError):
        message = str(manifest)
        assert path.name in message, manifest.__cause__
        assert "\n" not in message
        assert len(message) < 1000
        return
    json.dumps([request_to_json(request) for request in manifest.requests], allow_nan=False)
    json.dumps([dict(manifest.truth), dict(manifest.extras), manifest.notes], allow_nan=False)
