"""Other people's manifests, in the shapes in which they are published."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from fatezero.attention.active_steps import active_steps
from fatezero.commands.datasets import check_manifest
from fatezero.data.entry import Entry
from fatezero.data.foreign_manifests.fatezero_manifests import fatezero_edit
from fatezero.data.manifest import read_manifest
from fatezero.errors import UserError

BENCH = """\
swan_cartoon:
  path: result/swan/train_samples
  source: a black swan swimming in a river
  target: cartoon photo of a black swan swimming in a river,

train_shinkai:
  path: result/train/train_samples
  sampling_rate: 28
  source: a train,
  target: a train Makoto Shinkai style,
"""

CONFIG = """\
pretrained_model_path: "./ckpt/jeep_tuned_200"

dataset_config:
    path: "data/teaser_car-turn"
    prompt: "a silver jeep driving down a curvy road in the countryside"
    n_sample_frame: 8
    sampling_rate: 2
    stride: 80
    offset:
        left: 0
        right: 0
        top: 0
        bottom: 0

editing_config:
    use_invertion_latents: true
    guidance_scale: 9
    editing_prompts: [
        a silver jeep driving down a curvy road in the countryside,
        watercolor painting of a silver jeep driving down a curvy road in the countryside,
        a Porsche car driving down a curvy road in the countryside
    ]
    p2p_config:
        0:
            is_replace_controller: False
            cross_replace_steps:
                default_: 0.8
            self_replace_steps: 0.9
            masked_self_attention: True
            bend_th: [2, 2]
        1:
            cross_replace_steps:
                default_: 0.8
                watercolor: [0.1, 0.5]
            self_replace_steps: 0.8
            eq_params:
                words: ["watercolor", "sculpture"]
                values: [10, 2]
            is_replace_controller: True
        2:
            cross_replace_steps:
                default_: 0.5
            self_replace_steps: 0.5
            use_inversion_attention: True
            is_replace_controller: True
            blend_words: [['silver', 'jeep'], ["Porsche", 'car']]
            blend_self_attention: True
            blend_latents: True
            blend_th: [0.3, 0.3]

    clip_length: "${..dataset_config.n_sample_frame}"
    num_inference_steps: 50

model_config:
    lora: 160
    SparseCausalAttention_index: ['mid']
    least_sc_channel: 640

seed: 3
"""


def write(folder, text, name):
    (folder / name).write_text(text)
    return folder / name


def test_fatezero_benchmark(tmp_path):
    manifest = read_manifest(write(tmp_path, BENCH, "bench.yaml"))
    swan, train = manifest.requests
    assert manifest.name == "bench"
    assert (swan.id, swan.clip.path) == ("swan_cartoon", str(tmp_path / "result/swan/train_samples"))
    assert swan.source_prompt == "a black swan swimming in a river"
    assert swan.target_prompt.endswith("in a river,"), "prompts are taken as they stand"
    assert (train.clip.stride, train.settings) == (28, {})


def test_fatezero_configuration(tmp_path):
    manifest = read_manifest(write(tmp_path, CONFIG, "jeep.yaml"))
    same, watercolor, porsche = manifest.requests
    assert [request.id for request in manifest.requests] == ["jeep.0", "jeep.1", "jeep.2"]
    clip = same.clip
    assert (clip.path, clip.frames, clip.stride) == (str(tmp_path / "data/teaser_car-turn"), 8, 2)
    assert (clip.height, clip.width) == (512, 512)
    assert {request.seed for request in manifest.requests} == {3}
    shared = {
        "key_frames": ["middle"],
        "key_frames_min_width": 640,
        "norm_scope": "clip",
        "steps": 50,
        "guidance_scale": 9,
        "fusion.min_downsampling": 2,
    }
    assert same.settings == {
        **shared,
        "fusion.word_map": "refine",
        "fusion.cross_window": [0.0, 0.8],
        "fusion.word_windows": {},
        "fusion.self_window": [0.0, 0.9],
        "fusion.reweight": {},
        "blending": None,
    }
    assert watercolor.settings["fusion.word_windows"] == {"watercolor": [0.1, 0.5]}
    assert watercolor.settings["fusion.reweight"] == {"watercolor": 10}
    assert watercolor.settings["fusion.word_map"] == "refine", "the prompts have not as many words"
    assert porsche.settings == {
        **shared,
        "fusion.word_map": "replace",
        "fusion.cross_window": [0.0, 0.5],
        "fusion.word_windows": {},
        "fusion.self_window": [0.0, 0.5],
        "fusion.reweight": {},
        "blending.threshold": 0.3,
        "blending.self_attention": True,
        "blending.latent_window": [10.5 / 50, 39.5 / 50],
        "blending.latent_words": "both",
        "blending.mask_downsampling": 4,
    }
    assert porsche.edited_words == ("silver", "jeep")
    assert porsche.target_words == ("Porsche", "car")
    assert manifest.extras["jeep.0"]["ignored"] == [
        "masked_self_attention: unknown to the original",
        "bend_th: unknown to the original",
    ]
    assert manifest.extras["jeep.1"]["ignored"] == [
        "is_replace_controller: the prompts have not as many words",
        "fusion.reweight: 'sculpture' is not in the target",
    ]
    assert "jeep.2" not in manifest.extras


def test_fatezero_defaults_are_the_originals(tmp_path):
    config = yaml.safe_load(CONFIG)
    del config["model_config"], config["dataset_config"]["n_sample_frame"]
    config["editing_config"]["p2p_config"][0]["cross_replace_steps"] = {}
    manifest = read_manifest(write(tmp_path, yaml.dump(config), "jeep.yaml"))
    settings = manifest.requests[0].settings
    assert settings["key_frames"] == [-1, "first"]
    assert settings["key_frames_min_width"] == 0
    assert settings["fusion.cross_window"] == [0.0, 1.0]
    assert manifest.requests[0].clip.frames == 8


@pytest.mark.parametrize(
    ("stated", "blending", "words"),
    [
        ({"blend_words": [["cat"]]}, {"blending": None}, {}),
        ({"blend_self_attention": True}, {"blending": None}, {}),
        (
            {"blend_words": [["cat"]], "blend_self_attention": True, "blend_th": [2, 2]},
            {
                "blending.threshold": 2,
                "blending.self_attention": True,
                "blending.latent_window": None,
                "blending.latent_words": "source",
                "blending.mask_downsampling": 4,
            },
            {"edited_words": ["cat"], "target_words": []},
        ),
    ],
)
def test_fatezero_blends_only_with_words_and_a_flag(stated, blending, words):
    mapped, _ = fatezero_edit(edit_entry(**stated), "a cat", "a dog", 50, 512)
    assert {name: value for name, value in mapped["settings"].items() if name.startswith("blending")} == blending
    assert {name: value for name, value in mapped.items() if name != "settings"} == words


def edit_entry(**stated):
    return Entry("m.yaml", "line 1", {"cross_replace_steps": {}, "self_replace_steps": 0.5, **stated})


@pytest.mark.parametrize("steps", range(1, 101))
def test_fatezero_blends_latents_between_a_fifth_and_four_fifths(steps):
    """Strictly between, counted after each step."""
    edit = edit_entry(blend_words=[["cat"], ["dog"]], blend_latents=True)
    window = fatezero_edit(edit, "a cat", "a dog", steps, 512)[0]["settings"]["blending.latent_window"]
    theirs = [step for step in range(steps) if int(0.2 * steps) < step + 1 < int(0.8 * steps)]
    assert list(active_steps(window, steps)) == theirs


@pytest.mark.parametrize(("size", "downsampling"), [(64, 1), (256, 1), (320, 2), (512, 2), (576, 4), (1024, 4)])
def test_fatezero_fuses_layers_of_at_most_32_by_32(size, downsampling):
    settings = fatezero_edit(edit_entry(), "a cat", "a dog", 50, size)[0]["settings"]
    assert settings["fusion.min_downsampling"] == downsampling


def test_fatezero_drops_what_has_no_partner_or_is_not_in_its_prompt():
    """Its official configurations hold such words and values; each is noted."""
    edit = edit_entry(
        eq_params={"words": ["dog", "silver"], "values": [10, 2, 10]},
        blend_words=[["cat", "wooden"], ["dog", "robot"]],
        blend_latents=True,
    )
    stated, ignored = fatezero_edit(edit, "a cat", "a dog", 50, 512)
    assert stated["settings"]["fusion.reweight"] == {"dog": 10}
    assert (stated["edited_words"], stated["target_words"]) == (["cat"], ["dog"])
    assert ignored == [
        "eq_params: of 2 words and 3 values those that have no partner",
        "fusion.reweight: 'silver' is not in the target",
        "blend_words: 'wooden' is not in the source",
        "blend_words: 'robot' is not in the target",
    ]
    strangers = edit_entry(blend_words=[["fox"], ["dog"]], blend_latents=True)
    stated, ignored = fatezero_edit(strangers, "a cat", "a dog", 50, 512)
    assert stated["settings"]["blending"] is None
    assert "blend_latents: the original goes by the target's words alone here" in ignored
    strangers = edit_entry(blend_words=[["cat"], ["fox"]], blend_latents=True)
    stated, _ = fatezero_edit(strangers, "a cat", "a dog", 50, 512)
    assert stated["settings"]["blending.latent_words"] == "source"


def test_fatezero_edits_without_prompt_to_prompt_fuse_nothing(tmp_path):
    plain = CONFIG.replace("    guidance_scale: 9", "    guidance_scale: 9\n    prompt2prompt_edit: False")
    settings = read_manifest(write(tmp_path, plain, "jeep.yaml")).requests[0].settings
    assert settings["fusion"] is None
    assert settings["blending"] is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("train_dataset: {}\ntrainer_pipeline_config: {}\n", "configuration of a tuning .* `fatezero tune"),
        ("train_dataset: {}\nvalidation_sample_logger_config: {}\n", "first release: rename train_dataset"),
    ],
)
def test_fatezero_configurations_of_other_kinds_are_named(tmp_path, config, says):
    with pytest.raises(UserError, match=says):
        read_manifest(write(tmp_path, config, "jeep.yaml"))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("left: 0", "left: 40", "line 9, field 'offset': is not supported"),
        ("default_: 0.5", "default_: 5", "line 41, field 'cross_replace_steps': 5 is not a share"),
        ("self_replace_steps: 0.9", "self_replace_steps: all", "line 28, field 'self_replace_steps': 'all'"),
        ("values: [10, 2]", "values: 10", "line 36, field 'values': 10 is not a list"),
        ("        0:\n", "        7:\n", "entry '0', field 'cross_replace_steps': missing"),
        ("values: [10, 2]", "values: [10, much]", "line 36, field 'sculpture': 'much' is not a number"),
        ("['mid']", "mid", "line 56, field 'SparseCausalAttention_index': 'mid' is not a list"),
        ("least_sc_channel: 640", "least_sc_channel: wide", "line 57, field 'least_sc_channel': 'wide'"),
        ("prompt: ", "promt: ", "line 3, field 'prompt': missing"),
        ("[['silver', 'jeep'], [\"Porsche\", 'car']]", "jeep", "line 46, field 'blend_words': 'jeep'"),
    ],
)
def test_fatezero_mistakes_are_named(tmp_path, before, after, says):
    with pytest.raises(UserError, match=rf"jeep\.yaml, {says}"):
        read_manifest(write(tmp_path, CONFIG.replace(before, after, 1), "jeep.yaml"))


TGVE = """\
Video name,Our GT caption,Style Change Caption,Object Change Caption,\
Background Change Caption,Multiple Changes Caption
DAVIS Videos:,,,,,
gold-fish,A goldfish swims.,"A goldfish swims, anime style.",A shark swims.,A goldfish flies.,A shark flies.
,,,,,
Youtube Videos:,,,,,
salsa, Two people dance. ,A,B,C,D
"""


def test_tgve_table(tmp_path):
    (tmp_path / "DAVIS_480p/480p_frames/gold-fish").mkdir(parents=True)
    (tmp_path / "youtube_480p/480p_videos").mkdir(parents=True)
    (tmp_path / "youtube_480p/480p_videos/salsa.mp4").touch()
    manifest = read_manifest(write(tmp_path, TGVE, "tgve.csv"))
    assert [request.id for request in manifest.requests[:5]] == [
        "DAVIS_480p.gold-fish.style",
        "DAVIS_480p.gold-fish.object",
        "DAVIS_480p.gold-fish.background",
        "DAVIS_480p.gold-fish.multiple",
        "youtube_480p.salsa.style",
    ]
    first, salsa = manifest.requests[0], manifest.requests[4]
    assert first.clip.path == str(tmp_path / "DAVIS_480p/480p_frames/gold-fish")
    assert first.source_prompt == "A goldfish swims."
    assert first.target_prompt == "A goldfish swims, anime style."
    assert first.category == "style"
    assert manifest.extras[first.id] == {"split": "DAVIS_480p", "video": "gold-fish", "edit": "style"}
    assert salsa.clip.path == str(tmp_path / "youtube_480p/480p_videos/salsa.mp4")
    assert salsa.source_prompt == "Two people dance."


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("DAVIS Videos:,,,,,\n", "", "line 2, field 'Video name': a heading"),
        ("Youtube Videos:", "Vimeo Videos:", "line 5, field 'Video name': 'Vimeo Videos:' has no captions"),
        (",A,B", ",A,", "line 6, field 'Object Change Caption': missing"),
    ],
)
def test_tgve_mistakes_are_named(tmp_path, before, after, says):
    with pytest.raises(UserError, match=rf"tgve\.csv, {says}"):
        read_manifest(write(tmp_path, TGVE.replace(before, after), "tgve.csv"))


V2VBENCH = """\
data:
- video_id: hike
  edit:
  - prompt: a superman with a backpack hikes through the desert
  - prompt: a man hikes, pixel art
    task: style
- video_id: aurora
  prompt: green lights in the sky
  edit:
  - prompt: red lights in the sky
"""


def test_v2vbench_index(tmp_path):
    (tmp_path / "frames" / "hike").mkdir(parents=True)
    manifest = read_manifest(write(tmp_path, V2VBENCH, "config.yaml"))
    assert [request.id for request in manifest.requests] == ["hike.0", "hike.1", "aurora.0"]
    assert manifest.requests[0].clip.path == str(tmp_path / "frames" / "hike")
    assert [request.source_prompt for request in manifest.requests] == ["", "", "green lights in the sky"]
    assert manifest.requests[1].target_prompt == "a man hikes, pixel art"
    assert manifest.extras["hike.1"]["task"] == "style"
    assert (manifest.extras["hike.1"]["video_id"], manifest.extras["hike.1"]["edit_id"]) == ("hike", 1)
    with pytest.raises(UserError, match=r"config\.yaml, line 4, field 'prompt': missing"):
        read_manifest(write(tmp_path, V2VBENCH.replace("prompt: a superman", "promt: a superman"), "config.yaml"))


def test_davis_folder(tmp_path):
    for sequence in ("swan", "bmx-trees"):
        frames = tmp_path / "JPEGImages" / "480p" / sequence
        frames.mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (8, 6)).save(frames / f"{index:05d}.jpg")
    masks = tmp_path / "Annotations" / "480p" / "swan"
    masks.mkdir(parents=True)
    for index in range(3):
        Image.new("P", (8, 6)).save(masks / f"{index:05d}.png")
    manifest = read_manifest(tmp_path)
    assert [request.id for request in manifest.requests] == ["bmx-trees", "swan"]
    assert {request.target_prompt for request in manifest.requests} == {""}
    assert manifest.truth == {"swan": {"mask": str(tmp_path / "Annotations/480p/swan")}}
    assert check_manifest(tmp_path).problems == {}
    with pytest.raises(UserError, match="holds no JPEGImages/480p"):
        read_manifest(tmp_path / "JPEGImages")


PIE = {
    "000000000000": {
        "image_path": "0_random_140/000000000000.jpg",
        "original_prompt": "a slanted mountain bicycle on the road",
        "editing_prompt": "a slanted [rusty] mountain bicycle on the road",
        "editing_instruction": "Make the bicycle rusty",
        "editing_type_id": "6",
        "blended_word": "bicycle bicycle",
        "mask": [0, 262144],
    },
    "111000000001": {
        "image_path": "1_change_object_80/111000000001.jpg",
        "original_prompt": "a [tabby cat] on a [] wall",
        "editing_prompt": "a [dog] on a wall",
        "editing_type_id": "1",
        "blended_word": "",
    },
}


def test_pie_mapping(tmp_path):
    manifest = read_manifest(write(tmp_path, json.dumps(PIE), "mapping_file.json"))
    bicycle, cat = manifest.requests
    assert bicycle.clip.path == str(tmp_path / "annotation_images/0_random_140/000000000000.jpg")
    assert bicycle.target_prompt == "a slanted rusty mountain bicycle on the road"
    assert (bicycle.edited_words, bicycle.target_words) == (("bicycle",), ("bicycle",))
    assert bicycle.category == "change colour"
    assert manifest.truth == {"000000000000": {"mask_rle": [0, 262144]}}
    assert manifest.extras["000000000000"]["instruction"] == "Make the bicycle rusty"
    assert cat.source_prompt == "a tabby cat on a wall"
    assert (cat.edited_words, cat.target_words) == (("tabby", "cat"), ("dog",))
    escaping = {"x": {**PIE["111000000001"], "image_path": "../../secret.jpg"}}
    with pytest.raises(UserError, match=r"mapping_file\.json, entry 'x', field 'path': .* leads out of"):
        read_manifest(write(tmp_path, json.dumps(escaping), "mapping_file.json"))
    del escaping["x"]["original_prompt"]
    with pytest.raises(UserError, match=r"entry 'x', field 'original_prompt': missing"):
        read_manifest(write(tmp_path, json.dumps(escaping), "mapping_file.json"))


def test_the_shipped_clip_is_ready():
    folder = Path(__file__).parents[2] / "datasets" / "bigbuckbunny"
    assert check_manifest(folder / "manifest.yaml").problems == {}
    assert {request.category for request in read_manifest(folder / "manifest.yaml").requests} == {
        "style",
        "background",
        "object",
        "attribute",
    }


def test_an_entry_that_lacks_a_field_is_named_though_its_list_is_known_by_that_field(tmp_path):
    entries = {**PIE, "x": {"image_path": "a.jpg", "original_prompt": "a cat"}}
    with pytest.raises(UserError, match="entry 'x', field 'editing_prompt': missing"):
        read_manifest(write(tmp_path, json.dumps(entries), "mapping_file.json"))


def test_pie_may_state_no_mask_and_kinds_as_numbers(tmp_path):
    entries = {"x": {**PIE["000000000000"], "mask": None, "editing_type_id": 6}}
    manifest = read_manifest(write(tmp_path, json.dumps(entries), "mapping_file.json"))
    assert (manifest.truth, manifest.requests[0].category) == ({}, "change colour")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_tables_with_other_marks_than_commas_are_refused(tmp_path, mark):
    path = write(tmp_path, mark.join(["id", "clip", "target_prompt"]) + "\n" + mark.join("abc") + "\n", "m.csv")
    with pytest.raises(UserError, match=r"line 1: its columns are parted by .*; save it with commas"):
        read_manifest(path)


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path):
    with pytest.raises(UserError, match="save spreadsheets as CSV"):
        read_manifest(write(tmp_path, "PK", "LOVEU-TGVE-2023_Dataset.xlsx"))
