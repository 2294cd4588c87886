"""Small faithful copies of benchmarks, from their lists and result folders to scores."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from fatezero.clips.video import write_video
from fatezero.commands.datasets import check_manifest
from fatezero.commands.evaluate import evaluate
from fatezero.commands.shared import vetted
from fatezero.data.layout import result_name
from fatezero.data.manifest import read_manifest
from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.options import EvaluateVideos, ScoringOptions
from fatezero_eval.scoring.evaluation import Evaluation, evaluate_videos
from fatezero_eval.scoring.matching import match_videos
from fatezero_eval.scoring.rows import BASELINES, PUBLISHED, read_rows
from fatezero_eval.scoring.suite import METRICS
from fatezero_eval.tables.leaderboard_files import write_leaderboard
from fatezero_eval.tables.published_scores import MARK, read_all_published, read_published
from tests.eval.conftest import drifting

SIZE = 32
OUTSIDE = "psnr/outside"
Inside = npt.NDArray[np.bool_]


def inside_of(count: int = 3, side: int = SIZE) -> Inside:
    mask = np.zeros((count, side, side), bool)
    mask[:, side // 4 : side // 2, side // 4 : side // 2] = True
    return mask


def frames_in(folder: Path, frames: Frames, name: str = "{:05d}.png") -> Frames:
    """Writes frames as images, and gives back what a decoder sees of them."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(index))
    return np.stack([np.asarray(Image.open(folder / name.format(index))) for index in range(len(frames))])


def clip_in(folder: Path, name: str = "{:05d}.png", seed: int = 0) -> Frames:
    return frames_in(folder, drifting(3, seed, SIZE, SIZE), name)


def edited_inside(frames: Frames, inside: Inside | None = None) -> Frames:
    return np.where((inside_of(len(frames)) if inside is None else inside)[..., None], 255 - frames, frames)


def score(manifest: str | Path, videos: Path, out: Path, *metrics: str, **more: Any) -> Evaluation:
    options = EvaluateVideos(
        method="theirs", videos=videos, manifest=manifest, out=out, metrics=metrics or ("temporal_flickering",), **more
    )
    return evaluate_videos(options)


def values(found: Evaluation, metric: str) -> dict[str, float | None]:
    return {row.edit: row.value for row in found.rows if row.variant == "theirs" and row.metric.startswith(metric)}


def table(path: Path, header: Sequence[str], *lines: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def listed(path: Path, stated: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(stated) if path.suffix == ".json" else yaml.dump(stated, sort_keys=False), encoding="utf-8"
    )
    return path


CAPTIONS = ("Style Change Caption", "Object Change Caption", "Background Change Caption", "Multiple Changes Caption")
EDITS = ("style", "object", "background", "multiple")


def test_tgve_table_with_a_submission(tmp_path: Path) -> None:
    data, submission = tmp_path / "data", tmp_path / "submission"
    source = clip_in(data / "DAVIS_480p/480p_frames/gold-fish", "{:05d}.jpg")
    for edit in EDITS:
        frames_in(submission / "DAVIS_480p/gold-fish" / edit, 255 - source, "{:05d}.jpg")
    path = table(
        data / "LOVEU-TGVE-2023_Dataset.csv",
        ["Video name", "Our GT caption", *CAPTIONS, "", "", "Notes"],
        ["DAVIS Videos:", *[""] * 8],
        ["gold-fish", "Fish swim.", "Fish, anime style.", "Sharks swim.", "Fish fly.", "Sharks fly.", "", "", "odd"],
        [""] * 9,
    )
    assert not check_manifest(path).problems
    found = score(path, submission, tmp_path / "out")
    assert not found.failures
    assert list(values(found, "temporal_flickering")) == [f"DAVIS_480p.gold-fish.{edit}" for edit in EDITS]
    assert not match_videos(read_manifest(path), submission).unused


def test_tgve_as_the_baseline_writes_it(tmp_path: Path) -> None:
    clip_in(tmp_path / "data/DAVIS_480p/480p_frames/gold-fish", "{:05d}.jpg")
    prompts = {edit: f"Fish, {edit}." for edit in EDITS}
    for edit, prompt in prompts.items():
        write_video(
            tmp_path / f"outputs/DAVIS_480p/gold-fish/results/{edit}/{prompt}.gif", drifting(3, 1, SIZE, SIZE), 8
        )
    path = listed(tmp_path / "data/gold-fish.yaml", tgve_yaml(prompts))
    assert not [match for match in match_videos(read_manifest(path), tmp_path / "outputs").matches if match.problem]


def test_fatezero_as_its_script_writes_it(tmp_path: Path) -> None:
    """It writes frames and a video of each edit, and a grid of all."""
    clip_in(tmp_path / "data/jeep")
    edit = {"cross_replace_steps": {"default_": 0.8}, "self_replace_steps": 0.8}
    editing = {"editing_prompts": ["a", "b"], "p2p_config": {0: edit, 1: edit}, "sample_seeds": [7, 8]}
    dataset = {"path": "data/jeep", "prompt": "a", "n_sample_frame": 3, "image_size": SIZE}
    path = listed(tmp_path / "config/jeep.yaml", {"dataset_config": dataset, "editing_config": editing})
    written = tmp_path / "result/jeep/sample"
    write_video(written / "step_0.mp4", drifting(3, 9, SIZE, SIZE), 8)
    for index in range(2):
        clip_in(written / f"step_0_{index}_7", seed=index)
        write_video(written / f"step_0_{index}_7.mp4", drifting(3, index, SIZE, SIZE), 8)
    manifest = read_manifest(path, tmp_path)
    for folder in (written, written.parent):
        found = [match.video for match in match_videos(manifest, folder).matches if not match.problem]
        assert found == [written / "step_0_0_7", written / "step_0_1_7"]


def tgve_yaml(prompts: Any, **train: Any) -> dict[str, Any]:
    """As TGVE's `configs/loveu-tgve-2023` have it."""
    return {
        "pretrained_model_path": "./checkpoints/stable-diffusion-v1-4",
        "output_dir": "./outputs/loveu-tgve-2023/DAVIS_480p/gold-fish",
        "train_data": {
            "video_path": "./data/loveu-tgve-2023/DAVIS_480p/480p_frames/gold-fish",
            "prompt": "Fish swim.",
            "height": SIZE,
            "width": SIZE,
            **train,
        },
        "validation_data": {"prompts": prompts, "num_inference_steps": 50, "guidance_scale": 12.5},
        "seed": 33,
    }


def test_tgve_configuration_is_a_clip_and_four_edits(tmp_path: Path) -> None:
    data, submission = tmp_path / "data", tmp_path / "submission"
    source = clip_in(data / "DAVIS_480p/480p_frames/gold-fish", "{:05d}.jpg")
    for edit in EDITS:
        frames_in(submission / "DAVIS_480p/gold-fish" / edit, source, "{:05d}.jpg")
    prompts = {edit: f"Fish, {edit}." for edit in EDITS}
    path = listed(tmp_path / "gold-fish.yaml", tgve_yaml(prompts, num_frames=32, frame_rate=1))
    manifest = read_manifest(path, data)
    assert [request.id for request in manifest.requests] == [f"gold-fish.{edit}" for edit in EDITS]
    (clip,) = {request.clip for request in manifest.requests}
    assert (clip.path, clip.frames, clip.fit) == (str(data / "DAVIS_480p/480p_frames/gold-fish"), None, "stretch")
    assert {request.seed for request in manifest.requests} == {33}
    assert all("num_frames: the clip has 3 frames" in note for note in manifest.notes)
    assert len(manifest.notes) == 4
    assert not check_manifest(path, data).problems
    assert not score(path, submission, tmp_path / "out", root=str(data)).failures


def test_tune_a_video_configuration_lists_prompts(tmp_path: Path) -> None:
    write_video(tmp_path / "data/man-skiing.mp4", drifting(6, 1, SIZE, SIZE), 8)
    prompts = ["wonder woman is skiing", "a man, pixel art style, is skiing"]
    train = {"video_path": "data/man-skiing.mp4", "n_sample_frames": 2, "sample_start_idx": 1, "sample_frame_rate": 2}
    path = listed(tmp_path / "man-skiing.yaml", tgve_yaml(prompts, **train))
    first, second = read_manifest(path).requests
    assert (first.id, second.target_prompt) == ("man-skiing.0", prompts[1])
    assert (first.clip.start, first.clip.frames, first.clip.stride) == (1, 2, 2)
    for prompt in prompts:
        write_video(tmp_path / f"samples/{prompt}.gif", drifting(2, 2, SIZE, SIZE), 8)
    found = score(path, tmp_path / "samples", tmp_path / "out")
    assert len(values(found, "temporal_flickering")) == 2


def test_v2vbench(tmp_path: Path) -> None:
    write_video(tmp_path / "bench/videos/hike.mp4", drifting(3, 1, SIZE, SIZE), 8)
    edits = [{"prompt": "a superman hikes"}, {"prompt": "a man hikes, pixel art"}]
    path = listed(tmp_path / "bench/config.yaml", {"data": [{"video_id": "hike", "edit": edits}]})
    clip_in(tmp_path / "edited_videos/hike/0", "{:02d}.jpg")
    write_video(tmp_path / "edited_videos/hike/1.MP4", drifting(3, 3, SIZE, SIZE), 8)
    assert not check_manifest(path).problems
    assert [*values(score(path, tmp_path / "edited_videos", tmp_path / "out"), "temporal_f")] == ["hike.0", "hike.1"]


@pytest.mark.parametrize(
    ("name", "lines", "sequences"),
    [
        (None, "", ["bear", "dogs", "swan"]),
        ("ImageSets/2017/val.txt", "dogs\n\nbear\n", ["dogs", "bear"]),
        ("ImageSets/2016/val.txt", "bear", ["bear"]),
        (
            "ImageSets/480p/val.txt",
            "".join(f"/JPEGImages/480p/swan/0000{i}.jpg /Annotations/480p/swan/0000{i}.png\n" for i in range(3)),
            ["swan"],
        ),
    ],
)
def test_davis_and_its_lists(tmp_path: Path, name: str | None, lines: str, sequences: list[str]) -> None:
    davis = tmp_path / "DAVIS"
    for number, sequence in enumerate(("bear", "dogs", "swan"), start=1):
        source = clip_in(davis / "JPEGImages/480p" / sequence, "{:05d}.jpg", number)
        frames_in(tmp_path / "edited" / sequence, edited_inside(source))
        masks = davis / "Annotations/480p" / sequence
        masks.mkdir(parents=True)
        for index, inside in enumerate(inside_of()):
            mask = Image.fromarray(inside.astype(np.uint8) * number, "P")
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
            mask.save(masks / f"{index:05d}.png")
    manifest = davis
    if name:
        manifest = davis / name
        manifest.parent.mkdir(parents=True)
        manifest.write_text(lines, encoding="utf-8")
    assert not check_manifest(manifest).problems
    found = score(manifest, tmp_path / "edited", tmp_path / "out", OUTSIDE)
    assert values(found, OUTSIDE) == dict.fromkeys(sequences, 100.0)


def test_davis_lists_of_another_resolution_and_masks_of_the_unsupervised_task(tmp_path: Path) -> None:
    davis = tmp_path / "DAVIS"
    for resolution, side in (("480p", SIZE), ("1080p", 2 * SIZE)):
        frames_in(davis / "JPEGImages" / resolution / "swan", drifting(3, 1, side, side), "{:05d}.jpg")
        mask = np.repeat(inside_of(side=side).astype(np.uint8)[..., None], 3, axis=3)
        frames_in(davis / "Annotations_unsupervised" / resolution / "swan", mask, "{:05d}.png")
    for resolution in ("480p", "1080p"):
        path = davis / "ImageSets" / resolution / "val.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"/JPEGImages/{resolution}/swan/00000.jpg x.png\r\n", encoding="utf-8")
        manifest = read_manifest(path)
        (request,) = manifest.requests
        assert request.clip.path == str(davis / "JPEGImages" / resolution / "swan")
        assert manifest.truth["swan"]["mask"] == str(davis / "Annotations_unsupervised" / resolution / "swan")
        assert not check_manifest(path).problems


def pie_copy(folder: Path) -> tuple[Path, Frames, Frames]:
    """A list of one edit of 512 x 512, its source, and an edit inside its mask alone."""
    inside = inside_of(1, 512)
    starts = np.flatnonzero(inside[0].any(1)) * 512 + 128
    source = frames_in(folder / "annotation_images/0_random_140", drifting(1, 5, 512, 512), "{:012d}.png")
    entry = {
        "image_path": "0_random_140/000000000000.png",
        "original_prompt": "a bicycle",
        "editing_prompt": "a [rusty] bicycle",
        "editing_type_id": "0",
        "blended_word": "bicycle bicycle",
        "mask": [number for start in starts for number in (int(start), 128)],
    }
    return listed(folder / "mapping_file.json", {"000000000000": entry}), source, edited_inside(source, inside)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
@pytest.mark.parametrize("pictures", [1, 4])
@pytest.mark.parametrize("given", ["ddim+p2p", "ddim+p2p/annotation_images"])
def test_pie_bench_as_its_scripts_write_it(tmp_path: Path, given: str, pictures: int, suffix: str) -> None:
    """They join instruction, source, reconstruction and edit in one picture, of which the last part is scored."""
    path, source, edited = pie_copy(tmp_path / "data")
    results = tmp_path / "output/ddim+p2p/annotation_images/0_random_140"
    results.mkdir(parents=True)
    row = [source[0] * 0, source[0], 255 - source[0], edited[0]][-pictures:]
    Image.fromarray(np.concatenate(row, axis=1)).save(results / f"000000000000.{suffix}")
    found = score(path, tmp_path / "output" / given, tmp_path / "out", OUTSIDE, "mse/inside")
    assert values(found, OUTSIDE) == {"000000000000": 100.0}
    part = np.square((edited.astype(float) - source) / 255)[inside_of(1, 512)].mean()
    assert values(found, "mse/inside")["000000000000"] == pytest.approx(part, rel=1e-9)
    notes = {row.notes for row in found.rows if row.variant == "theirs"}
    assert notes == ({"the last of 4 pictures side by side is scored"} if pictures > 1 else {""})


def test_pie_bench(tmp_path: Path) -> None:
    path, _, edited = pie_copy(tmp_path / "data")
    frames_in(tmp_path / "output/ddim+p2p/annotation_images/0_random_140", edited, "{:012d}.png")
    assert not check_manifest(path).problems
    assert values(score(path, tmp_path / "output/ddim+p2p", tmp_path / "out", OUTSIDE), OUTSIDE) == {
        "000000000000": 100.0
    }


def test_pie_bench_by_kind_of_edit(tmp_path: Path) -> None:
    entries = {}
    for kind, name in (("6", "red"), ("9", "old")):
        frames = frames_in(tmp_path / "annotation_images" / kind, drifting(2, 1, SIZE, SIZE), name + "{}.png")
        frames_in(tmp_path / "output/annotation_images" / kind, frames, name + "{}.png")
        for index in range(2):
            entries[f"{kind}{index}"] = {
                "image_path": f"{kind}/{name}{index}.png",
                "original_prompt": "a bicycle",
                "editing_prompt": f"a [{name}] bicycle",
                "editing_type_id": kind,
            }
    path = listed(tmp_path / "mapping_file.json", entries)
    found = score(path, tmp_path / "output", tmp_path / "out", "temporal_flickering", categories=("change colour",))
    assert {row.edit for row in found.rows} == {"60", "61"}
    assert not found.failures
    with pytest.raises(UserError, match="has no edits of category 'red': it has change colour, change style"):
        score(path, tmp_path / "output", tmp_path / "out", categories=("red",))


def test_five_bench(tmp_path: Path) -> None:
    source = clip_in(tmp_path / "data/images/0001_bus", "{:05d}.jpg")
    frames_in(
        tmp_path / "data/bmasks/0001_bus",
        np.repeat(inside_of().astype(np.uint8)[..., None] * 255, 3, axis=3),
        "{:05d}.jpg",
    )
    entry = {
        "video_name": "0001_bus",
        "save_dir": "1_a red bus",
        "source_prompt": "a [blue] bus",
        "target_prompt": "a [red] bus",
        "editing_type_id": 3,
        "multiple_choice_question": "What colour is the bus? a) Blue b) Red",
        "source_yes_no_question": "Is the bus blue?",
        "target_yes_no_question": "Is the bus red?",
    }
    path = listed(tmp_path / "data/edit_prompt/edit3_FiVE.json", [entry])
    frames_in(tmp_path / "results/8_Wan_Edit/0001_bus/1_a red bus", edited_inside(source))
    # From which Wan-Edit's frames were taken.
    write_video(tmp_path / "results/8_Wan_Edit/0001_bus/1_a red bus.mp4", drifting(3, 1, SIZE, SIZE), 8)
    manifest = read_manifest(path)
    (request,) = manifest.requests
    assert (request.id, request.category, request.target_words) == ("edit3_FiVE.0", "change colour", ("red",))
    assert manifest.extras[request.id]["target_yes_no_question"] == "Is the bus red?"
    assert not check_manifest(path).problems
    found = score(path, tmp_path / "results/8_Wan_Edit", tmp_path / "out", OUTSIDE)
    assert values(found, OUTSIDE) == {"edit3_FiVE.0": 100.0}
    write_video(tmp_path / "outputs/wan/0001_bus/3_a [red] bus.mp4", drifting(3, 1, SIZE, SIZE), 8)
    assert not match_videos(manifest, tmp_path / "outputs/wan").matches[0].problem


@pytest.mark.parametrize("root", [None, ".", "sample"])
def test_editboard_names_edited_videos_itself(tmp_path: Path, root: str | None) -> None:
    source = clip_in(tmp_path / "sample/bear", "{:05d}.jpg")
    frames_in(tmp_path / "sample/bear_white", edited_inside(source), "frame_{}.png")
    mask = np.repeat(inside_of().astype(np.uint8)[..., None] * 255, 3, axis=3)
    frames_in(tmp_path / "sample/bear_mask", mask)
    header = ["original_video_path", "edited_video_path", "semantic_mask_path", "source_prompt", "target_prompt"]
    line = ["./sample/bear", "./sample/bear_white", "./sample/bear_mask", "a brown bear", "a white bear"]
    path = table(tmp_path / "sample/script.csv", header, line)
    where = None if root is None else str(tmp_path / root)
    assert not check_manifest(path, where).problems
    found = score(path, tmp_path / "sample", tmp_path / "out", OUTSIDE, root=where)
    assert values(found, OUTSIDE) == {"bear_white": 100.0}


def test_videos_of_one_name_in_several_folders_are_edits_of_their_own(tmp_path: Path) -> None:
    for name in ("sample/bear", "out/white/bear", "out/black/bear"):
        clip_in(tmp_path / name, "{:05d}.jpg")
    header = ["original_video_path", "edited_video_path", "target_prompt"]
    lines = [["./sample/bear", f"./out/{colour}/bear", f"a {colour} bear"] for colour in ("white", "black")]
    path = table(tmp_path / "script.csv", header, *lines)
    assert [request.id for request in read_manifest(path).requests] == ["out/white/bear", "out/black/bear"]
    assert not [match for match in match_videos(read_manifest(path), tmp_path / "out").matches if match.problem]
    prompts = listed(tmp_path / "prompts.json", {"owl.mp4": "an owl", "Owl.gif": "a red owl", "fox.mp4": "a fox"})
    assert [request.id for request in read_manifest(prompts).requests] == ["owl.mp4", "Owl.gif", "fox"]


def test_vbench_scores_videos_without_sources(tmp_path: Path, tiny_clip: Path) -> None:
    for name in ("an owl in the snow-0.mp4", "an owl in the snow-1.MP4", "a red fox.gif"):
        write_video(tmp_path / "videos" / name.replace("MP4", "mp4"), drifting(3, len(name), SIZE, SIZE), 8)
    (tmp_path / "videos/an owl in the snow-1.mp4").rename(tmp_path / "videos/an owl in the snow-1.MP4")
    names = [
        metric.name for metric in METRICS if metric.network in {None, "clip", "motion", "flow"} and metric.asks is None
    ]
    found = score(tmp_path / "videos", tmp_path / "videos", tmp_path / "out", *names, judge=str(tiny_clip))
    assert not found.failures
    rows = {(row.edit, row.metric.partition("@")[0]): row for row in found.rows}
    assert {row.variant for row in found.rows} == {"theirs"}, "there are no baselines without sources"
    assert {row.clip for row in found.rows} == {"an owl in the snow", "a red fox"}, "samples of a prompt are one clip"
    defined = {metric for (_, metric), row in rows.items() if row.value is not None}
    assert {"text_alignment", "frame_consistency", "temporal_flickering"} <= defined
    for name in ("warp_error", OUTSIDE, "directional_similarity", "motion_fidelity"):
        assert rows["a red fox", name].reason == "no source clip is stated for this edit"
    assert rows["a red fox", "frame_accuracy"].reason == "no source prompt is stated for this clip"
    by_file = listed(tmp_path / "prompts.json", {"an owl in the snow-0.mp4": "an owl", "a red fox.gif": "a red fox"})
    assert check_manifest(by_file).problems == {}
    assert [*values(score(by_file, tmp_path / "videos", tmp_path / "two"), "temporal_f").values()] == [
        rows["an owl in the snow-0", "temporal_flickering"].value,
        rows["a red fox", "temporal_flickering"].value,
    ]


def test_an_edit_without_a_source_is_not_made(tmp_path: Path) -> None:
    stated = [{"id": "one", "clip": None, "target_prompt": "a red fox"}]
    (request,) = read_manifest(listed(tmp_path / "m.json", stated)).requests
    _, unfit = vetted([request], pytest.fail, [])
    assert "no source clip" in str(unfit["one"])
    with_truth = [{**stated[0], "truth": {"mask": "mask.png"}}]
    with pytest.raises(UserError, match="field 'mask': belongs to the frames of a clip"):
        read_manifest(listed(tmp_path / "m.json", with_truth))


INSTRUCTED: Mapping[str, tuple[str, Any, str, str]] = {
    "ivebench": (
        "ivebench_prompt_short.json",
        [
            {
                "id": 7,
                "src_video_name": "dog_1.mp4",
                "category": "style_editing",
                "subcategory": "x",
                "source_prompt": "a dog",
                "edit_prompt": "Make it watercolour.",
                "target_prompt": "a dog, watercolour",
            }
        ],
        "ivebenchdb_mp4_short/dog_1.mp4",
        "dog_1.mp4",
    ),
    "openve": (
        "benchmark_videos.csv",
        "edited_type,prompt,original_video\n"
        'local_add,"Add a hat, red.",OpenVE-Bench/videos/0000_local_add_Add_a_hat.mp4\n',
        "videos/0000_local_add_Add_a_hat.mp4",
        "0000_local_add_Add_a_hat.mp4",
    ),
    "editverse": (
        "test.json",
        {
            "0": {
                "<text>": "<video1> Add a crown ...",
                "<video1>": "videos/174008-850361316.mp4",
                "<video1> link": "https://pixabay.com/videos/174008/",
                "direction": "horizontal",
                "target_prompt": "A woman with a crown",
                "type": "add object",
                "source_prompt": "A woman",
            }
        },
        "videos/174008-850361316.mp4",
        "0/generate.mp4",
    ),
    "unieditbench": (
        "metadata.json",
        [
            {
                "id": "0000",
                "path": "./UniEditBench/videos/add/animal/001.mp4",
                "width": SIZE,
                "height": SIZE,
                "source_prompt": "a lion",
                "target_prompt": "a lion and a zebra",
                "edited_prompt": "add a zebra",
                "edit_type": "add",
                "edit_model": "theirs",
                "edit_path": "outputs/theirs/add/001.mp4",
            }
        ],
        "videos/add/animal/001.mp4",
        "theirs/add/001.mp4",
    ),
}


@pytest.mark.parametrize("name", INSTRUCTED)
def test_benchmarks_of_instructions(tmp_path: Path, name: str) -> None:
    file, stated, source, result = INSTRUCTED[name]
    path = tmp_path / "bench" / file
    path.parent.mkdir()
    path.write_text(stated if isinstance(stated, str) else json.dumps(stated), encoding="utf-8")
    frames = drifting(3, 1, SIZE, SIZE)
    write_video(path.parent / source, frames, 8)
    write_video(tmp_path / "outputs" / result, 255 - frames, 8)
    manifest = read_manifest(path)
    (request,) = manifest.requests
    assert request.clip.path == str(path.parent / source)
    assert manifest.extras[request.id]["instruction"].lower().count("add") + (name == "ivebench") == 1
    assert request.category
    assert not check_manifest(path).problems
    found = score(path, tmp_path / "outputs", tmp_path / "out")
    assert not found.failures
    assert list(values(found, "temporal_flickering")) == [request.id]


@pytest.mark.parametrize("name", [name for name in INSTRUCTED if name != "ivebench"])
def test_sources_are_found_whose_suffix_is_in_capitals(tmp_path: Path, name: str) -> None:
    file, stated, source, _ = INSTRUCTED[name]
    (tmp_path / file).write_text(stated if isinstance(stated, str) else json.dumps(stated), encoding="utf-8")
    lies = tmp_path / source.replace(".mp4", ".MP4")
    lies.parent.mkdir(parents=True)
    lies.touch()
    assert read_manifest(tmp_path / file).requests[0].clip.path == str(lies)


def test_an_instruction_is_no_prompt_to_be_scored(tmp_path: Path, tiny_clip: Path) -> None:
    file, stated, source, result = INSTRUCTED["openve"]
    (tmp_path / file).write_text(stated, encoding="utf-8")
    write_video(tmp_path / source, drifting(3, 1, SIZE, SIZE), 8)
    write_video(tmp_path / "out" / result, drifting(3, 2, SIZE, SIZE), 8)
    names = ("text_alignment", "frame_accuracy", "directional_similarity", "frame_consistency")
    found = score(tmp_path / file, tmp_path / "out", tmp_path / "scores", *names, judge=str(tiny_clip))
    rows = {row.metric.partition("@")[0]: row for row in found.rows if row.variant == "theirs"}
    assert [name for name in names if rows[name].value is not None] == ["frame_consistency"]
    assert all("prompt is stated" in rows[name].reason for name in names[:3])


def test_a_list_of_results_of_several_models_is_refused(tmp_path: Path) -> None:
    (entry,) = INSTRUCTED["unieditbench"][1]
    both = [entry, {**entry, "id": "0001", "edit_model": "others"}]
    with pytest.raises(UserError, match=r"results of several models \(theirs, others\): write a list for each"):
        read_manifest(listed(tmp_path / "m.json", both))


def test_a_benchmarks_list_may_be_json_lines(tmp_path: Path) -> None:
    (entry,) = INSTRUCTED["unieditbench"][1]
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(entry)}\n\n{json.dumps({**entry, 'id': 3})}\n", encoding="utf-8")
    assert [request.id for request in read_manifest(tmp_path / "m.jsonl").requests] == ["0000", "3"]
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(entry)}\n\n{json.dumps({'id': 4})}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"m\.jsonl, line 3, field 'path': missing"):
        read_manifest(tmp_path / "m.jsonl")


def test_an_edited_path_may_lead_to_the_folder_from_the_root_but_not_elsewhere(tmp_path: Path) -> None:
    frames = drifting(3, 1, SIZE, SIZE)
    for name in ("bench/videos/a.mp4", "outputs/x.mp4", "elsewhere/y.mp4"):
        write_video(tmp_path / name, frames, 8)
    for result, there in (("outputs/x.mp4", True), ("elsewhere/y.mp4", False)):
        header = ["edited_type", "prompt", "original_video", "edited_result_path"]
        line = ["local_add", "Add a hat.", "videos/a.mp4", str(tmp_path / result)]
        report = match_videos(read_manifest(table(tmp_path / "bench/new.csv", header, line)), tmp_path / "outputs")
        assert (not report.matches[0].problem) is there


def test_the_folder_of_videos_may_be_written_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_in(tmp_path / "bench/a")
    write_video(tmp_path / "outputs/x.mp4", drifting(3, 1, SIZE, SIZE), 8)
    stated = {"id": "one", "clip": "a", "source_prompt": "a", "target_prompt": "b"}
    manifest = read_manifest(listed(tmp_path / "bench/m.json", [{**stated, "video": str(tmp_path / "outputs/x.mp4")}]))
    monkeypatch.chdir(tmp_path / "bench")
    for folder in ("../outputs", "../bench/../outputs", str(tmp_path / "outputs")):
        by_name = read_manifest(listed(tmp_path / "bench/n.json", [{**stated, "id": "x"}]))
        assert not match_videos(by_name, Path(folder)).matches[0].problem
    monkeypatch.chdir(tmp_path)
    assert not match_videos(manifest, Path("outputs")).matches[0].problem


def test_edits_that_are_called_alike_by_clip_and_category_are_not_given_one_video(tmp_path: Path) -> None:
    clip_in(tmp_path / "clips/cow")
    clip_in(tmp_path / "results/cow/style")
    stated = {"clip": "clips/cow", "category": "style", "source_prompt": "a", "target_prompt": "b"}
    for count, fit in ((1, True), (2, False)):
        edits = [{**stated, "id": f"cow {index}"} for index in range(count)]
        report = match_videos(read_manifest(listed(tmp_path / "m.json", edits)), tmp_path / "results")
        assert [not match.problem for match in report.matches] == [fit] * count


def test_what_is_missing_is_said_with_what_was_looked_for_and_an_example(tmp_path: Path) -> None:
    clip_in(tmp_path / "clips/cow")
    clip_in(tmp_path / "results/night/cow")
    stated = {"clip": "clips/cow", "category": "style", "source_prompt": "a", "target_prompt": "b"}
    edits = [{**stated, "id": name, "video": "day/cow"} for name in ("a cow", "x" * 300 + ".mp4", "y" * 300 + "/y")]
    report = match_videos(read_manifest(listed(tmp_path / "m.json", edits)), tmp_path / "results")
    sought = f"missing: there is no day/cow and no a cow and no {result_name('a cow')}, with any suffix"
    assert report.matches[0].problem == sought
    assert all(len(match.problem) < 400 for match in report.matches)
    assert "\n? no edit's video is there; what is there looks like night/cow/00000.png\n" in str(report)
    (tmp_path / "none").mkdir()
    assert "looks like" not in str(match_videos(read_manifest(tmp_path / "m.json"), tmp_path / "none"))


@pytest.mark.parametrize("kind", ["yaml", "json", "csv"])
def test_a_field_or_column_names_an_edits_file(tmp_path: Path, kind: str) -> None:
    clip_in(tmp_path / "clips/cow")
    clip_in(tmp_path / "results/night/cow v2", seed=2)
    clip_in(tmp_path / "results/later/cow v3", seed=2)
    edit = {
        "id": "cow at night",
        "clip": "clips/cow",
        "source_prompt": "a cow",
        "target_prompt": "a cow at night",
        "video": "night/cow v2",
    }
    path = tmp_path / f"m.{kind}"
    if kind == "csv":
        table(path, [*edit], [*edit.values()])
    else:
        listed(path, {"edits": [{**edit, "video": ["later/cow", "night/cow v2", "later/cow v3"]}]})
    assert [*values(score(path, tmp_path / "results", tmp_path / "out"), "temporal_f")] == ["cow at night"]


def test_results_of_ids_of_any_text_are_found_by_their_safe_names(tmp_path: Path) -> None:
    ids = ["a cow, asleep", "cows/two", "../up"]
    clip_in(tmp_path / "clips/cow")
    edits = [{"id": name, "clip": "clips/cow", "source_prompt": "a", "target_prompt": "b"} for name in ids]
    clip_in(tmp_path / "results" / result_name(ids[0]))
    clip_in(tmp_path / "results/cows/two", seed=1)
    clip_in(tmp_path / "up", seed=2)
    manifest = read_manifest(listed(tmp_path / "m.json", edits))
    first, second, third = match_videos(manifest, tmp_path / "results").matches
    assert (first.problem, second.problem) == ("", "")
    assert third.problem.startswith("missing"), "no id leads out of the folder"


def test_evaluate_reads_a_manifest_in_a_store_and_says_its_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))
    clip_in(tmp_path / "store/data/jeep")
    edit = {
        "cross_replace_steps": {"default_": 0.8},
        "self_replace_steps": 0.8,
        "eq_params": {"words": ["red"], "values": [10, 2]},
    }
    config = {
        "dataset_config": {"path": "data/jeep", "prompt": "a jeep", "n_sample_frame": 3, "image_size": SIZE},
        "editing_config": {"editing_prompts": ["a red jeep"], "p2p_config": {0: edit}},
    }
    listed(tmp_path / "store/jeep.yaml", config)
    clip_in(tmp_path / "videos/jeep.0", seed=1)
    done = evaluate(
        options=ScoringOptions(metrics=("temporal_flickering",)),
        method="theirs",
        videos=tmp_path / "videos",
        manifest=f"file://{tmp_path}/store/jeep.yaml",
        out=tmp_path / "out",
    )
    said = capsys.readouterr().out
    assert done == 0
    assert said.count("eq_params: of 1 words and 2 values") == 1
    assert {row.edit for row in read_rows(tmp_path / "out/rows.jsonl")} == {"jeep.0"}


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    clip_in(tmp_path / "clips/cow")
    clip_in(tmp_path / "clips/owl", seed=1)
    edits = [
        {"id": name, "clip": f"clips/{name}", "source_prompt": "a", "target_prompt": "b", "category": "style"}
        for name in ("cow", "owl")
    ]
    for name in ("cow", "owl"):
        clip_in(tmp_path / "results" / name, seed=4)
    score(listed(tmp_path / "m.json", edits), tmp_path / "results", tmp_path / "ours")
    return tmp_path / "ours"


def test_published_scores_stand_beside_ours_marked_and_unranked(scored: Path, tmp_path: Path) -> None:
    header = ["edit", "metric", "value", "method"]
    lines = [["cow", "temporal_flickering@1", "0.5"], ["owl", "temporal_flickering@1", "1"], ["cow", "five_acc", "1"]]
    lines += [["owl", "five_acc", ""], ["hen", "five_acc", "0"]]
    path = table(tmp_path / "wan.csv", header, *([*line, "Wan-Edit"] for line in lines))
    board = write_leaderboard([scored, path], tmp_path / "board")
    (only,) = board.tables
    assert [method.variant for method in only.methods] == ["theirs", "Wan-Edit (published)", *BASELINES]
    found = {(s.variant, s.metric): s for s in only.scores if not s.category}
    flickering = found["Wan-Edit (published)", "temporal_flickering@1"]
    assert flickering.interval is not None
    assert (flickering.interval.value, flickering.clips) == (0.75, 2)
    accuracy = found["Wan-Edit (published)", "five_acc@published"]
    assert accuracy.interval is not None
    assert (accuracy.interval.value, accuracy.clips, accuracy.undefined) == (1.0, 1, 1)
    assert not [key for key in only.ranks if "published" in key[0]]
    assert not [d for d in only.differences if "published" in d.variant]
    assert board.problems == ("1 edits of the published scores are none of the runs', so they are left out: hen.",)
    text = (tmp_path / "board/leaderboard.md").read_text(encoding="utf-8")
    assert "Wan-Edit (published): scored by others" in text
    assert "five_acc@published" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("edit,metric\ncow,x\n", "no column 'value'"),
        ("edit,metric,value,colour\ncow,x,1,red\n", "column 'colour' is unknown"),
        ("edit,metric,value\ncow,x,much\n", "line 2, field 'value': 'much' is not a number"),
        ("edit,metric,value\ncow,x,inf\n", "'inf' is too large"),
        ("edit,metric,value\ncow,x\n", "line 2: not as many cells"),
        ("edit,metric,value\ncow,x,1\ncow,x,2\n", "has two scores of x@published"),
        ("edit,metric,value\ncow,x,45%\n", "'45%' is not a number; write it as 12.5"),
        ('edit,metric,value\ncow,x,"0,5"\n', "'0,5' is not a number"),
        ("edit;metric;value\ncow;x;1\n", "no column 'edit'.* parted by commas"),
        ("name,x\ncow,1\n", "or one of edit, file_id, id, video_id, video_name and a column for each metric"),
        ("id,x,words\ncow,1,red\n", "line 2, field 'value': 'red' is not a number"),
        ("id,x\ncow,1\ncow,2\n", "has two scores of x@published for edit 'cow'"),
        ("edit,metric,value\n", "holds no scores"),
        ("edit,metric,value,method\ncow,x,1,no edit\n", "tables have other rows called 'no edit'"),
    ],
)
def test_published_scores_that_are_damaged_are_refused(scored: Path, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        write_leaderboard([scored, tmp_path / "p.csv"], tmp_path / "board")


# As PnPInversion and FiVE-Bench (`method|metric`), EditVerseBench and IVEBench write them.
TABLES_OF_OTHERS = {
    "edit1_FiVE_evaluation_result_frame_stride8.csv": (
        "file_id,8_Wan_Edit|psnr_unedit_part,8_Wan_Edit|five_acc\n0,26.5,1\n1,nan,0.5\n",
        {
            ("8_Wan_Edit", "psnr_unedit_part", "edit1_FiVE.0"): 26.5,
            ("8_Wan_Edit", "psnr_unedit_part", "edit1_FiVE.1"): None,
            ("8_Wan_Edit", "five_acc", "edit1_FiVE.0"): 1.0,
            ("8_Wan_Edit", "five_acc", "edit1_FiVE.1"): 0.5,
        },
    ),
    "evaluation_result.csv": (
        "file_id,1_ddim+p2p|psnr,1_pnp|psnr\n000000000000,20,21\n",
        {("1_ddim+p2p", "psnr", "000000000000"): 20.0, ("1_pnp", "psnr", "000000000000"): 21.0},
    ),
    "EditVerse.csv": (
        "id,clip_temporal_consistency,type\n0,0.98,add object\nAverage,0.98,\n",
        {
            ("EditVerse", "clip_temporal_consistency", "0"): 0.98,
            ("EditVerse", "clip_temporal_consistency", "Average"): 0.98,
        },
    ),
    "vace_eval_results.csv": (
        "category,subcategory,video_id,video_name,vtss_score,vtss_error\nstyle,x,7,dog_1.mp4,0.1,\n"
        "style,x,8,dog_2.mp4,-1.0,no such file\n",
        {("vace_eval_results", "vtss_score", "7"): 0.1, ("vace_eval_results", "vtss_score", "8"): None},
    ),
}


@pytest.mark.parametrize("name", TABLES_OF_OTHERS)
def test_tables_that_other_suites_write_are_read_as_published_scores(tmp_path: Path, name: str) -> None:
    text, stated = TABLES_OF_OTHERS[name]
    (tmp_path / name).write_text(text, encoding="utf-8-sig", newline="\r\n")
    rows = read_published(tmp_path / name)
    found = {(row.variant, row.metric, row.edit): row.value for row in rows}
    assert found == {
        (f"{method} {MARK}", f"{metric}{PUBLISHED}", edit): v for (method, metric, edit), v in stated.items()
    }


def test_a_methods_published_scores_may_be_spread_over_files(tmp_path: Path) -> None:
    for folder, edits in (("one", "cow"), ("two", "owl"), ("three", "owl")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.csv").write_text(f"edit,metric,value,method\n{edits},x,1,Wan\n", encoding="utf-8")
    files = [tmp_path / folder / "p.csv" for folder in ("one", "two", "three")]
    assert [row.edit for row in read_all_published(files[:2])] == ["cow", "owl"]
    with pytest.raises(UserError, match=r"two/p\.csv and .*three/p\.csv: Wan \(published\) has two scores"):
        read_all_published(files)


def test_every_form_of_a_leaderboard_marks_what_is_published(scored: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "wan.csv", ["edit", "metric", "value"], ["cow", "temporal_flickering@9", "1"])
    write_leaderboard([scored, path], tmp_path / "board")
    for suffix in ("md", "csv", "json", "html"):
        text = (tmp_path / f"board/leaderboard.{suffix}").read_text(encoding="utf-8")
        assert "wan (published)" in text
        assert "temporal_flickering@9@published" in text, "a metric of another version is another column"
    with pytest.raises(UserError, match=r"no variant 'wan \(published\)' .* choose one of theirs, source, no edit\."):
        write_leaderboard([scored, path], tmp_path / "board", reference="wan (published)")


PAGE = Path(__file__).parents[2] / "docs/how-to/benchmarks.md"


def page_rows() -> dict[str, list[str]]:
    """The cells of the page's table by the benchmark they are of."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: others for name, *others in cells[1:]}


def small_lists(folder: Path) -> dict[str, Path]:
    """A list of each benchmark, by its name in the page; masks lie where they are looked for."""
    config = {
        "dataset_config": {"path": "a", "prompt": "a jeep"},
        "editing_config": {
            "editing_prompts": ["b"],
            "p2p_config": {0: {"cross_replace_steps": {"default_": 0.8}, "self_replace_steps": 0.8}},
        },
    }
    five = {"video_name": "bus", "save_dir": "1", "source_prompt": "a", "target_prompt": "b", "editing_type_id": 1}
    for masks in ("five/bmasks/bus", "DAVIS/Annotations/480p/swan", "DAVIS/JPEGImages/480p/swan", "videos"):
        (folder / masks).mkdir(parents=True)
    (folder / "videos/an owl.mp4").touch()
    board = ["original_video_path", "edited_video_path", "semantic_mask_path", "source_prompt", "target_prompt"]
    tgve = ["Video name", "Our GT caption", *CAPTIONS]
    instructed = {
        "UniEditBench": "unieditbench",
        "IVEBench": "ivebench",
        "OpenVE-Bench": "openve",
        "EditVerseBench": "editverse",
    }
    for name in instructed.values():
        file, stated, *_ = INSTRUCTED[name]
        (folder / file).write_text(stated if isinstance(stated, str) else json.dumps(stated), encoding="utf-8")
    return {
        "FateZero": listed(folder / "jeep.yaml", config),
        "FateZero's list": listed(folder / "b.yaml", {"swan": {"path": "a", "source": "a", "target": "b"}}),
        "Tune-A-Video": listed(folder / "tune.yaml", tgve_yaml(["b"])),
        "TGVE 2023 (table)": table(folder / "t.csv", tgve, ["DAVIS Videos:", *[""] * 5], ["fish", *"abcde"]),
        "TGVE 2023 (yaml)": listed(folder / "fish.yaml", tgve_yaml({"style": "b"})),
        "V2VBench": listed(folder / "config.yaml", {"data": [{"video_id": "hike", "edit": [{"prompt": "b"}]}]}),
        "DAVIS 2016, 2017": folder / "DAVIS",
        "PIE-Bench": pie_copy(folder / "pie")[0],
        "FiVE-Bench": listed(folder / "five/edit_prompt/edit1_FiVE.json", [five]),
        "EditBoard": table(folder / "script.csv", board, [*"abcde"]),
        "VBench (custom input)": folder / "videos",
        **{name: folder / INSTRUCTED[key][0] for name, key in instructed.items()},
    }


def test_the_page_of_benchmarks_says_what_lists_state(tmp_path: Path) -> None:
    rows, lists = page_rows(), small_lists(tmp_path)
    assert rows.keys() == lists.keys()
    for name, path in lists.items():
        manifest = read_manifest(path)
        request = manifest.requests[0]
        prompts = "both" if request.source_prompt else "target" if request.target_prompt else "none"
        masked = bool({"mask", "mask_rle"} & manifest.truth.get(request.id, {}).keys())
        _, _, said_prompts, said_mask, test = rows[name]
        assert (said_prompts, said_mask) == (prompts, "yes" if masked else "no"), name
        assert request.has_source is (name != "VBench (custom input)")
        assert callable(globals().get(test.strip("`"))), test


def test_the_page_of_benchmarks_has_a_command_for_each_row() -> None:
    text = PAGE.read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("fatezero evaluate --method ")][1:]
    assert len(commands) == len(page_rows())
    known = {*inspect.signature(evaluate).parameters, *(field.name for field in dataclasses.fields(ScoringOptions))}
    for command in commands:
        options = {word.removeprefix("--") for word in command if word.startswith("--")}
        assert {"method", "videos", "manifest", "out"} <= options <= known


def test_the_pages_example_is_a_manifest(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "m.yaml").write_text(example, encoding="utf-8")
    manifest = read_manifest(tmp_path / "m.yaml")
    assert manifest.videos == {"a cow at night": ("night/cow v2",)}
    assert manifest.truth["a cow at night"]["objects"] == [1, 3]
