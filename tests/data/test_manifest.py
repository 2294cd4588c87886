"""Manifests in our own fields: what they say, and how they complain."""

import json

import pytest

from fatezero.data.manifest import read_manifest, request_from_json, request_to_json
from fatezero.errors import UserError
from fatezero.types import ClipSpec, EditRequest

FULL = """\
name: trial
edits:
  - id: jeep.red-1
    clip:
      {path: clips/jeep.mp4, start: 2, frames: 8, stride: 3, fps: 12.5, height: 64, width: 96, fit: stretch}
    source_prompt: a jeep on the road
    target_prompt: >
      a red jeep
      on the road
    edited_words: [jeep]
    target_words: [red, jeep]
    category: attribute
    seed: 7
    settings:
      fusion.cross_window: [0, 0.6]
      blending: null
    truth:
      mask: masks/jeep
      seed: 5
  - {id: plain, clip: clips/jeep.mp4, source_prompt: a jeep, target_prompt: a bus}
"""


def write(folder, text, name="m.yaml"):
    (folder / name).write_text(text)
    return folder / name


def entry(**changes):
    """A whole entry as YAML of one line, with fields changed, or left out where the change is None."""
    fields = {"id": "one", "clip": "a.mp4", "source_prompt": "a cat", "target_prompt": "a dog", **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def test_every_field_arrives(tmp_path):
    manifest = read_manifest(write(tmp_path, FULL))
    full, plain = manifest.requests
    assert manifest.name == "trial"
    assert full == EditRequest(
        id="jeep.red-1",
        clip=ClipSpec(
            path=str(tmp_path / "clips/jeep.mp4"),
            start=2,
            frames=8,
            stride=3,
            fps=12.5,
            height=64,
            width=96,
            fit="stretch",
        ),
        source_prompt="a jeep on the road",
        target_prompt="a red jeep on the road",
        edited_words=("jeep",),
        target_words=("red", "jeep"),
        category="attribute",
        seed=7,
        settings={"fusion.cross_window": [0, 0.6], "blending": None},
    )
    assert plain.clip == ClipSpec(path=str(tmp_path / "clips/jeep.mp4"))
    assert (plain.edited_words, plain.seed, plain.settings) == ((), 0, {})
    assert manifest.truth == {"jeep.red-1": {"mask": str(tmp_path / "masks/jeep"), "seed": 5}}
    assert manifest.extras == {}


def test_anchors_and_merged_mappings_are_yaml_too(tmp_path):
    text = (
        "edits:\n"
        "  - &first {id: one, clip: a.mp4, source_prompt: a cat, target_prompt: a dog}\n"
        "  - {<<: *first, id: two}\n"
    )
    assert [request.id for request in read_manifest(write(tmp_path, text)).requests] == ["one", "two"]


CSV = """\
id,clip,frames,fps,source_prompt,target_prompt,edited_words,seed
one,a.mp4,8,12.5,a cat,"a dog, asleep",cat,3

two,b.mp4,,,a cat,a dog,,
"""


def test_yaml_json_jsonl_and_csv_say_the_same(tmp_path):
    edits = [
        {
            "id": "one",
            "clip": {"path": "a.mp4", "frames": 8, "fps": 12.5},
            "source_prompt": "a cat",
            "target_prompt": "a dog, asleep",
            "edited_words": ["cat"],
            "seed": 3,
        },
        {"id": "two", "clip": "b.mp4", "source_prompt": "a cat", "target_prompt": "a dog"},
    ]
    texts = {
        "m.csv": "\ufeff" + CSV,
        "m.json": json.dumps(edits),
        "n.json": json.dumps({"edits": edits}),
        "m.yaml": json.dumps({"edits": edits}),
        "n.yml": json.dumps(edits),
        "m.jsonl": "\n".join(map(json.dumps, edits)) + "\n\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    read = {name: read_manifest(tmp_path / name).requests for name in texts}
    assert len(read["m.json"]) == 2
    assert read["m.json"][0].target_prompt == "a dog, asleep"
    assert all(requests == read["m.json"] for requests in read.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (entry(colour="red"), "line 3, field 'colour': unknown; the fields are id, clip"),
        (entry(id=None), "line 3, field 'id': missing"),
        (entry(clip=None), "line 3, field 'clip': missing"),
        (entry(target_prompt=None), "line 3, field 'target_prompt': missing"),
        (entry(source_prompt=7), "line 3, field 'source_prompt': 7 is not a text"),
        (entry(id="a\n"), r"line 3, field 'id': 'a\\n' is empty, longer than 1000 characters, or holds control"),
        (entry(id=" "), "line 3, field 'id'"),
        (entry(id=""), "line 3, field 'id'"),
        (entry(edited_words="cat"), "line 3, field 'edited_words': 'cat' is not a list of words"),
        (entry(edited_words=[1]), "line 3, field 'edited_words'"),
        (entry(seed="x"), "line 3, field 'seed': 'x' is not a whole number"),
        (entry(seed=True), "line 3, field 'seed': True is not a whole number"),
        (entry(seed=-1), "line 3, field 'seed': -1 is not between"),
        (entry(settings=[1]), r"line 3, field 'settings': \[1\] is not a mapping"),
        (
            entry(clip={"path": "a.mp4", "begin": 3}),
            "line 3, field 'begin': unknown; the fields are path, start",
        ),
        (entry(clip={"start": 3}), "line 3, field 'path': missing"),
        (
            entry(clip={"path": "a.mp4", "frames": 2.5}),
            "line 3, field 'frames': 2.5 is neither a whole number nor a time",
        ),
        (entry(clip={"path": "a.mp4", "fps": "x"}), "line 3, field 'fps': 'x' is not a number"),
        (entry(clip={"path": "a.mp4", "fit": "pad"}), "line 3, field 'fit': 'pad' is none of crop, right, stretch"),
        (entry(clip="../a.mp4"), "line 3, field 'path': '../a.mp4' leads out of .*as `root`"),
        (entry(clip="/etc/passwd"), "line 3, field 'path': '/etc/passwd' leads out of"),
        (entry(clip="b/../../a.mp4"), "line 3, field 'path': .* leads out of"),
        (entry(clip="..\\a.mp4"), "line 3, field 'path': .* leads out of"),
        (entry(clip="s3://bucket/a.mp4"), "line 3, field 'path': .* is not a path of a local file"),
        (entry(truth={"mask": "../mask.png"}), "line 3, field 'mask': .* leads out of"),
        ("just words", "line 3: 'just words' is not an entry"),
    ],
)
def test_mistakes_are_named_with_line_and_field(tmp_path, text, says):
    path = write(tmp_path, f"edits:\n  - {entry(id='first')}\n  - {text}\n")
    with pytest.raises(UserError, match=f"m.yaml, {says}") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


def test_lines_of_fields_are_their_own(tmp_path):
    text = "edits:\n  - id: one\n    clip: a.mp4\n    source_prompt: a cat\n    sede: 3\n"
    with pytest.raises(UserError, match=r"m\.yaml, line 5, field 'sede': unknown"):
        read_manifest(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("m.yaml", "", "is no manifest known here"),
        ("m.yaml", "edits: []", "lists no edits"),
        ("m.yaml", "edits: 3", "line 1, field 'edits': must be a list"),
        ("m.yaml", f"edits: [{entry()}]\nruns: 3", "line 2, field 'runs': unknown"),
        ("m.yaml", "a: [1, 2", "line 1: not YAML"),
        ("m.yaml", "edits: [!!python/object/apply:os.system [ls]]", "line 1: not YAML .*python/object"),
        ("m.yaml", f"edits: [{entry()}]\nedits: []", "line 2: 'edits' stands there twice"),
        ("m.yaml", "edits:\n  - {id: one, id: two}", "line 2: 'id' stands there twice"),
        ("m.yaml", f"edits:\n- {entry()}\n- {entry()}", "line 3, field 'id': 'one' is taken"),
        ("m.json", '{"edits": [}', "line 1: not JSON"),
        ("m.json", '{"edits": [], "edits": []}', "'edits' stands there twice"),
        ("m.json", f"[{entry()}, {entry(seed=0.5)}]", "entry 2, field 'seed'"),
        ("m.jsonl", f"{entry()}\n{{", "line 2: not JSON"),
        ("m.jsonl", f"{entry()}\n\n{entry(id='two', seed=[])}", "line 3, field 'seed'"),
        ("m.csv", CSV.replace("a cat,a dog", "a cat"), "line 4: not as many cells"),
        (
            "m.csv",
            CSV.replace(",8,", ",eight,"),
            "line 2, field 'frames': 'eight' is neither a whole number nor a time",
        ),
        ("m.csv", CSV.replace("id,", "name,"), "line 2, field 'name': unknown"),
        ("m.csv", CSV.replace("two", "one"), "line 4, field 'id': 'one' is taken"),
        ("m.txt", "edits", "is no manifest; name a .yaml"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, says):
    with pytest.raises(UserError, match=f"{name}.*{says}"):
        read_manifest(write(tmp_path, text, name))


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("laughs.yaml", LAUGHS),
        ("self.yaml", "edits: &edits [*edits]"),
        ("deep.yaml", "[" * 600),
        ("deep.json", "[" * 100_000),
        ("deep.jsonl", "[" * 100_000),
        ("control.yaml", "edits: \x00"),
    ],
)
def test_hostile_files_end_in_a_sentence(tmp_path, name, text):
    with pytest.raises(UserError, match=name) as caught:
        read_manifest(write(tmp_path, text, name))
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "m.yaml").write_bytes("edits: café".encode("latin-1"))
    with pytest.raises(UserError, match=r"m\.yaml is not a text file in UTF-8"):
        read_manifest(tmp_path / "m.yaml")


def test_a_root_says_where_paths_start_and_what_they_may_not_leave(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    path = write(tmp_path / "lists", f"edits: [{entry(clip='clips/a.mp4')}]")
    assert read_manifest(path, root=tmp_path).requests[0].clip.path == str(tmp_path / "clips/a.mp4")
    absolute = write(tmp_path / "lists", f"edits: [{entry(clip=str(tmp_path / 'b.mp4'))}]", "abs.yaml")
    assert read_manifest(absolute, root=tmp_path).requests[0].clip.path == str(tmp_path / "b.mp4")
    with pytest.raises(UserError, match="leads out of"):
        read_manifest(absolute)
    with pytest.raises(UserError, match="no such file or folder"):
        read_manifest(path, root=tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    assert read_manifest("lists/abs.yaml", root=".").requests[0].clip.path == str(tmp_path / "b.mp4")


def test_requests_survive_json(tmp_path):
    for request in read_manifest(write(tmp_path, FULL)).requests:
        text = json.dumps(request_to_json(request))
        assert request_from_json(json.loads(text)) == request
    with pytest.raises(UserError, match=r"meta\.json, request, field 'colour': unknown"):
        request_from_json({**request_to_json(request), "colour": "red"}, "meta.json")
    with pytest.raises(UserError, match="field 'id'"):
        request_from_json({**request_to_json(request), "id": "a\0b"})
