"""Studies: what raters are given says nothing of who made what, and the key says all."""

import base64
import json
import shutil

import numpy as np
import pytest

from fatezero.cli import main
from fatezero.clips.video import read_clip, write_video
from fatezero.errors import UserError
from fatezero.types import ClipSpec
from fatezero_eval.people.study_key import Side, StudyKey, Trial, read_key, write_key
from fatezero_eval.people.study_options import StudyOptions, TheirVideos
from fatezero_eval.people.study_page import write_study
from fatezero_eval.people.trials import in_pieces
from tests.eval.study_runs import COLOURS, HEIGHT, WIDTH, counting, make_run

SECRET = {"zebra-method": (220, 40, 40), "quokka-method": (40, 200, 60)}


def parts(page):
    """The page's data, and its videos as bytes by number."""
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    blocks = text.split('<script type="text/plain" id="media-')[1:]
    return data, [base64.b64decode(block.partition(">")[2].partition("</script>")[0]) for block in blocks]


def study(run, out, problems=0, theirs=(), manifest=None, **options):
    written = write_study([run], theirs, StudyOptions(**options), out, manifest)
    assert len(written.problems) == problems, written.problems
    return (*parts(written.page), read_key(out))


def test_the_page_tells_nobodys_name(tmp_path):
    run = make_run(tmp_path / "hidden-run", 2, SECRET)
    _, videos, key = study(run, tmp_path / "study")
    page = (tmp_path / "study" / "index.html").read_bytes()
    for told in (page, *videos):
        for secret in (*SECRET, "hidden-run", "edit-0", "edit-1", str(tmp_path)):
            assert secret.encode() not in told
    assert key.methods == tuple(sorted(SECRET))
    assert key.runs == (str(run),)
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"index.html", "study-key.json"}


def test_equal_requests_give_equal_bytes_and_other_seeds_others(tmp_path):
    run = make_run(tmp_path / "run", 2)
    written = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        study(run, tmp_path / name, seed=seed)
        written[name] = [(tmp_path / name / file).read_bytes() for file in ("index.html", "study-key.json")]
    assert written["a"] == written["b"]
    assert written["a"][0] != written["c"][0]
    assert written["a"][1] != written["c"][1]


def test_who_knows_the_seed_and_the_names_does_not_know_who_made_what(tmp_path):
    sides = set()
    for number in range(4):
        colours = {name: (colour[0], colour[1], colour[2] + number) for name, colour in COLOURS.items()}
        _, _, key = study(make_run(tmp_path / str(number) / "run", 1, colours), tmp_path / f"study-{number}", checks=0)
        sides.add(tuple((trial.first.method, trial.second.method) for trial in key.trials.values()))
    assert len(sides) > 1


def colour_at(frames, edit, tile):
    """The middle of a tile's square: its colour, and how much it varies."""
    top, left = tile // edit["columns"] * edit["cell_height"], tile % edit["columns"] * edit["cell_width"]
    square = frames[:, top + 12 : top + 36, left + 4 : left + 20].astype(float)
    return square.mean(axis=(0, 1, 2)), square.std(axis=(0, 1, 2)).max()


def test_tiles_show_what_the_key_says_in_every_order(tmp_path):
    data, videos, key = study(make_run(tmp_path / "run", 4), tmp_path / "study", checks=2)
    assert data["study"] == key.study
    assert [trial["id"] for trial in data["trials"]] == list(key.trials)
    assert len(key.trials) == 4 * 3 + 2
    orders, places = set(), set()
    for stated in data["trials"]:
        edit, trial = data["edits"][stated["edit"]], key.trials[stated["id"]]
        path = tmp_path / "shown.mp4"
        path.write_bytes(videos[edit["media"]])
        frames = read_clip(ClipSpec(path=str(path))).frames
        assert edit["target_prompt"].endswith(trial.edit[-1])
        for number, (side, tile) in enumerate(zip((trial.first, trial.second), stated["tiles"], strict=True)):
            mean, spread = colour_at(frames, edit, tile)
            if trial.right in (None, number):
                assert np.abs(mean - COLOURS[side.method]).max() < 12
                assert spread < 12
                places.add((side.method, tile))
            else:
                assert spread > 12
        orders.add((trial.first.method < trial.second.method, trial.right))
        assert np.abs(colour_at(frames, edit, edit["source"])[0] - 128).max() < 12
    assert {order for order, right in orders if right is None} == {True, False}
    assert len(places) > len(COLOURS)  # a method's place tells nothing


def test_each_rater_is_asked_some_pairs_and_all_checks(tmp_path):
    run = make_run(tmp_path / "run", 4)
    data, _, key = study(run, tmp_path / "some", checks=2, pairs=5)
    shared = [trial["id"] for trial in data["trials"] if trial["shared"]]
    checks = [name for name, trial in key.trials.items() if trial.right is not None]
    assert len(checks) == 2
    assert set(checks) < set(shared)
    assert len(shared) == 4  # as many others are asked of everybody
    assert data["drawn"] == 3
    data, _, _ = study(run, tmp_path / "all", checks=0, pairs=500)
    assert all(trial["shared"] for trial in data["trials"])
    assert (len(data["trials"]), data["drawn"]) == (12, 0)


def test_of_each_category_the_first_edits_and_the_methods_asked_for(tmp_path):
    run = make_run(tmp_path / "run", 4)
    _, _, key = study(run, tmp_path / "study", checks=0, edits=1, variants=("sdedit", "full"))
    assert sorted((trial.edit, trial.category) for trial in key.trials.values()) == [
        ("edit-0", "style"),
        ("edit-1", "shape"),
    ]
    assert key.methods == ("full", "sdedit")


def test_what_cannot_be_read_costs_its_own_pairs(tmp_path, capsys):
    run = make_run(tmp_path / "run", 3)
    (run / "full" / "edit-0" / "frames" / "00002.png").write_bytes(b"no picture")
    shutil.rmtree(tmp_path / "clips" / "1")
    assert main(["study", str(run), f"--out={tmp_path / 'study'}", "--checks=0"]) == 1
    said = capsys.readouterr().err
    assert "00002.png" in said
    assert "edit-1" in said
    assert "Traceback" not in said
    asked = [
        (trial.edit, trial.first.method, trial.second.method) for trial in read_key(tmp_path / "study").trials.values()
    ]
    assert len(asked) == 1 + 3
    assert not any(edit == "edit-1" or (edit == "edit-0" and "full" in both) for edit, *both in asked)


def test_equal_videos_are_not_asked(tmp_path):
    run = make_run(tmp_path / "run", 1, {"one": (9, 9, 200), "two": (9, 9, 200), "three": (200, 9, 9)})
    _, _, key = study(run, tmp_path / "study", problems=1, checks=0)
    assert sorted(sorted((t.first.method, t.second.method)) for t in key.trials.values()) == [
        ["one", "three"],
        ["three", "two"],
    ]


def test_videos_of_others_join_at_any_size_and_length(tmp_path):
    run = make_run(tmp_path / "run", 2, SECRET)
    lines = []
    for record in sorted((run / "zebra-method").glob("*/meta.json")):
        values = json.loads(record.read_text())["request"]
        lines.append(json.dumps({**values, "clip": {"path": f"clips/{values['clip']['path'][-1]}"}}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    frames = counting((50, 80, 230), 0)[:3].repeat(2, axis=1).repeat(2, axis=2)
    write_video(tmp_path / "theirs" / "edit-0.mp4", frames, 8)
    theirs = [TheirVideos(method="theirs", folder=tmp_path / "theirs")]
    written = write_study([run], theirs, StudyOptions(checks=0), tmp_path / "study", tmp_path / "manifest.jsonl")
    assert [problem.split(":")[0] for problem in written.problems] == ["theirs/edit-1"]
    assert written.notes == (
        "theirs/edit-0: 3 frames, the source 4",
        f"theirs/edit-0: {2 * HEIGHT} height, the source {HEIGHT}",
        f"theirs/edit-0: {2 * WIDTH} width, the source {WIDTH}",
        "theirs lacks 1 of 2 edits: fewer pairs ask about it.",
    )
    met = [
        (trial.edit, {trial.first.method, trial.second.method})
        for trial in read_key(tmp_path / "study").trials.values()
    ]
    assert ("edit-0", {"theirs", "zebra-method"}) in met
    assert len(met) == 4
    with pytest.raises(UserError, match="--manifest"):
        write_study([run], theirs, StudyOptions(), tmp_path / "no")


def test_videos_without_a_source_are_compared_by_themselves(tmp_path):
    for method, colour in SECRET.items():
        for name in ("a red square", "a blue square"):
            write_video(tmp_path / method / f"{name}-0.mp4", counting(colour, len(name)), 8)
    prompts = {f"{name}-0.mp4": name for name in ("a red square", "a blue square")}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    theirs = [f"{method}={tmp_path / method}" for method in SECRET]
    given = [f"--manifest={tmp_path / 'prompts.json'}", f"--out={tmp_path / 'study'}", "--checks=1"]
    assert main(["study", *given, "--videos", *theirs]) == 0
    data, _ = parts(tmp_path / "study" / "index.html")
    assert [edit["source"] for edit in data["edits"]] == [None, None]
    key = read_key(tmp_path / "study")
    assert {trial.clip for trial in key.trials.values()} == {"a red square", "a blue square"}
    assert sorted(trial.right is None for trial in key.trials.values()) == [False, True, True]


def test_a_method_without_all_edits_is_named(tmp_path):
    run = make_run(tmp_path / "run", 3)
    shutil.rmtree(run / "sdedit" / "edit-1")
    written = write_study([run], [], StudyOptions(checks=0), tmp_path / "study")
    assert written.notes == ("sdedit lacks 1 of 3 edits: fewer pairs ask about it.",)
    assert written.pairs == 3 + 1 + 3


def test_runs_of_the_same_variants_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / name, 1, {"full": colour}) for name, colour in (("a", (200, 9, 9)), ("b", (9, 200, 9)))]
    write_study(runs, [], StudyOptions(checks=0), tmp_path / "study")
    assert read_key(tmp_path / "study").methods == ("a/full", "b/full")
    with pytest.raises(UserError, match="Two methods are called 'a/full'"):
        write_study([runs[0], runs[0] / ".." / "a"], [], StudyOptions(), tmp_path / "no")


def test_edits_to_another_prompt_are_no_rivals(tmp_path):
    one = make_run(tmp_path / "one", 2, {"full": (200, 9, 9)})
    other = make_run(tmp_path / "other", 2, {"half": (9, 200, 9)}, target="something else")
    shutil.copytree(make_run(tmp_path / "third", 1, {"half": (9, 9, 200)}) / "half" / "edit-0", other / "half" / "x")
    shutil.rmtree(other / "half" / "edit-0")
    written = write_study([one, other], [], StudyOptions(checks=0), tmp_path / "study")
    assert [trial.edit for trial in read_key(tmp_path / "study").trials.values()] == ["edit-0"]
    assert "half/edit-1: not shown, since other results have another clip or prompt." in written.problems


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variants": ("nobody",)}, "no method 'nobody'"),
        ({"variants": ("full",)}, "No edit has two videos"),
        ({"questions": ("beauty",)}, "write name=Your question?"),
        ({"questions": ("overall", "overall")}, "twice"),
        ({"questions": ()}, "questions is empty"),
        ({"questions": ("a=" + "?" * 301,)}, "write name=Your question?"),
        ({"edits": 0}, "edits is 0"),
        ({"title": " "}, "title has 0 characters"),
    ],
)
def test_what_asks_nothing_is_refused(tmp_path, options, said):
    run = make_run(tmp_path / "run", 1)
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        write_study([run], [], StudyOptions(**options), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_questions_of_ones_own_are_asked(tmp_path):
    run = make_run(tmp_path / "run", 1)
    words = [
        "study",
        str(run),
        f"--out={tmp_path / 'study'}",
        "--ties=false",
        "--questions",
        "text",
        "taste=Which <do> you like?",
    ]
    assert main(words) == 0
    data, _ = parts(tmp_path / "study" / "index.html")
    assert [question["name"] for question in data["questions"]] == ["text", "taste"]
    assert data["questions"][1]["text"] == "Which <do> you like?"
    assert data["ties"] is False


@pytest.mark.parametrize("name", ["source", "no edit", " "])
def test_names_of_other_rows_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be called"):
        TheirVideos(method=name, folder=tmp_path)


def test_pieces_hold_the_same_pixels_elsewhere():
    frames = np.random.default_rng(0).integers(0, 255, (3, 50, 45, 3), dtype=np.uint8)
    pieces = in_pieces(frames, np.random.default_rng(1))
    for before, after in zip(frames, pieces, strict=True):
        assert sorted(map(tuple, before.reshape(-1, 3))) == sorted(map(tuple, after.reshape(-1, 3)))
    assert (frames != pieces).mean() > 0.8
    still = in_pieces(frames[:1].repeat(2, axis=0), np.random.default_rng(1))
    assert (still[0] != still[1]).mean() > 0.5  # every frame is cut anew


KEY = StudyKey(
    study="s",
    questions={"overall": "Which?"},
    ties=True,
    methods=("a", "b"),
    runs=("run",),
    trials={
        "pair-1": Trial(
            edit="e", clip="c", category="", first=Side(method="a", seed=0), second=Side(method="b", seed=1)
        )
    },
)


def test_a_key_comes_back_as_it_was_written(tmp_path):
    write_key(tmp_path, KEY)
    assert read_key(tmp_path) == read_key(tmp_path / "study-key.json") == KEY


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "no json",
        lambda text: text.replace('"a"', "1", 1),
        lambda text: text.replace("fatezero-study-key@1", "other"),
        lambda text: text.replace('"method": "b"', '"method": "z"'),
        lambda text: text.replace('"right": null', '"right": 7'),
        lambda text: text.replace('"trials"', '"trails"'),
        lambda text: "[]",
    ],
)
def test_a_damaged_key_is_refused_in_a_sentence(tmp_path, damage):
    path = write_key(tmp_path, KEY)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match="not readable as the key of a study") as refused:
        read_key(tmp_path)
    assert "\n" not in str(refused.value)
