"""What is attacked: a command line, and the files it names, made from sound ones by `mutations`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from fatezero.attention.temporal import inflate
from fatezero.cli import main
from fatezero.clips.video import write_frames, write_video
from fatezero.config import RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.types import Frames
from tests.fuzzing import mutations

GOLDEN_MODEL = Path(__file__).parents[1] / "golden" / "model"
SMALL = ("--steps=2", "--frames=2", "--height=64", "--width=64", "--device=cpu", "--threads=1")
CANARY = "cases/secret/canary.txt"


@dataclass(frozen=True)
class FuzzCase:
    """One attack.

    Attributes:
        words: the command line.
        must_fail: why status 0 would be a lie; empty where it might be none.
        makes: files that are there, and not empty, where the status is 0.
        says: what the output does not hold where the status is 0.
    """

    words: Sequence[str]
    must_fail: str = ""
    makes: Sequence[str] = ()
    never_says: Sequence[str] = field(default=())


def make_materials(base: Path) -> None:
    """The sound files that cases are made from: clips, a scored run, a cache, a tuned and a published checkpoint."""
    (base / CANARY).parent.mkdir(parents=True)
    (base / CANARY).write_text(mutations.SECRET, encoding="utf-8")
    frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    clips = base / "clips"
    write_frames(clips / "folder", frames)
    for suffix in ("webp", "mp4"):
        write_video(clips / f"clip.{suffix}", frames, 8)
    pictures = [Image.fromarray(frame) for frame in frames]
    for suffix in ("gif", "png"):
        pictures[0].save(clips / f"clip.{suffix}", save_all=True, append_images=pictures[1:])
    _make_odd_clips(clips, pictures[0], frames)
    edit = ["edit", f"--model={GOLDEN_MODEL}", f"--clip={clips / 'clip.webp'}", "--source=a cat", *SMALL]
    run = base / "run"
    assert main([*edit, "--target=a dog", "--edited_words", "cat", "--id=one", f"--out={run}"]) == 0
    assert main([*edit, "--target=a cow", "--id=two", f"--out={run}"]) == 0
    for name in ("cat", "cow"):
        cached = ["--target=a dog", f"--source=a {name}", f"--cache={base / 'cache'}", f"--out={base / 'cached'}"]
        assert main([*edit, *cached, f"--id={name}"]) == 0
    assert main(["evaluate", str(run), "--metrics", "psnr*"]) == 0
    tune = ["tune", f"--model={GOLDEN_MODEL}", f"--clip={clips / 'clip.webp'}", "--prompt=a cat", "--rank=2"]
    assert main([*tune, "--steps=1", *SMALL[1:], f"--out={base / 'tuned'}"]) == 0
    _publish(base / "published")


def _make_odd_clips(folder: Path, picture: Image.Image, frames: Frames) -> None:
    """Sound clips that say odd things of themselves: a turn that there is none of, a title in Latin-1, a rate."""
    exif = Image.Exif()
    exif[0x0112] = 99
    picture.save(folder / "turned.jpg", exif=exif)
    for name, rate, title in (("titled.mp4", 8, "ZZZZ"), ("titled.avi", 8, "ZZZZ"), ("fast.mp4", 3_000_000, "")):
        with av.open(str(folder / name), "w") as container:
            container.metadata["title"] = title
            stream = container.add_stream("mpeg4", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 25)
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"ZZZZ", b"\xe9\xe8\xa0\xff"))


def _publish(folder: Path) -> None:
    """A checkpoint as Tune-A-Video's authors publish theirs."""
    shutil.copytree(GOLDEN_MODEL, folder)
    unet = UNetBackbone.load(str(GOLDEN_MODEL), RuntimeConfig(device="cpu", dtype="float32")).unet
    inflate(unet, 4)
    config = folder / "unet" / "config.json"
    text = json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"model_config": {"lora": 4}})
    text = text.replace("Block2D", "BlockPseudo3D").replace("UNet2D", "UNetPseudo3D")
    config.write_text(text, encoding="utf-8")
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        torch.save(unet.state_dict() if part == "unet" else load_file(file), file.with_suffix(".bin"))
        file.unlink()


def own_manifest(clip: str) -> dict[str, Any]:
    """A manifest of this project's own kind."""
    entry = {"clip": clip, "source_prompt": "a cat", "target_prompt": "a dog", "edited_words": ["cat"], "seed": 1}
    one = {**entry, "id": "one", "category": "shape", "settings": {"steps": 2, "blending.threshold": 0.3}}
    two = {
        **entry,
        "id": "two",
        "clip": {"path": clip, "start": 0, "frames": 2, "stride": 1, "height": 64, "width": 64},
    }
    return {"name": "small", "edits": [one, {**two, "truth": {"clip": clip, "mask": clip, "held_out": True}}]}


FOREIGN: Mapping[str, tuple[str, Any]] = {
    "bench.yaml": ("yaml", {"swan": {"path": "clip.webp", "source": "a swan", "target": "a duck", "sampling_rate": 2}}),
    "config.yaml": (
        "yaml",
        {
            "dataset_config": {"path": "clip.webp", "prompt": "a cat runs", "n_sample_frame": 2, "image_size": 64},
            "editing_config": {
                "editing_prompts": ["a dog runs"],
                "num_inference_steps": 2,
                "p2p_config": {
                    0: {
                        "cross_replace_steps": {"default_": 0.8, "dog": [0.1, 0.5]},
                        "self_replace_steps": 0.8,
                        "eq_params": {"words": ["dog"], "values": [10]},
                        "is_replace_controller": True,
                        "blend_words": [["cat"], ["dog"]],
                        "blend_self_attention": True,
                        "blend_th": [0.3, 0.3],
                    }
                },
            },
        },
    ),
    "v2v.yaml": (
        "yaml",
        {"data": [{"video_id": "clip.webp", "prompt": "a cat", "edit": [{"prompt": "a dog", "type": "x"}]}]},
    ),
    "mapping_file.json": (
        "json",
        {
            "000": {
                "image_path": "clip.webp",
                "original_prompt": "a [cat]",
                "editing_prompt": "a [dog]",
                "blended_word": "cat dog",
                "editing_type_id": "1",
                "mask": [0, 10],
            }
        },
    ),
}
TGVE = (
    "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,Multiple Changes "
)
TGVE += "Caption\nDAVIS Videos:,,,,,\nclip,a cat,a drawn cat,a dog,a cat on ice,a drawn dog\n"


def _manifest(case: Path, base: Path, random: Random) -> str:
    """A mutated manifest of any kind, beside a sound clip."""
    for place in ("clip.webp", "annotation_images/clip.webp", "DAVIS_480p/480p_videos/clip.mp4"):
        (case / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / "clips" / Path(place).name, case / place)
    kind = random.choice(("yaml", "json", "jsonl", "csv", "tgve", "davis", *FOREIGN))
    tree = own_manifest("clip.webp")
    if kind in FOREIGN:
        form, tree = FOREIGN[kind]
        (case / kind).write_bytes(mutations.written_tree(random, mutations.mutated_tree(random, tree), form))
        return kind
    if kind == "davis":
        folder = case / "davis/JPEGImages/480p/sequence"
        shutil.copytree(base / "clips" / "folder", folder)
        mutations.mutated_folder(random, case / "davis", case / "marker")
        return "davis"
    path = case / ("tgve.csv" if kind == "tgve" else f"manifest.{kind}")
    if kind == "tgve":
        content = mutations.mutated_bytes(random, TGVE.encode())
    elif kind == "csv":
        rows = ["id,clip,source_prompt,target_prompt", f"one,clip.webp,a cat,{mutations.odd_text(random)}"]
        content = mutations.mutated_bytes(random, "\n".join(rows).encode("utf-8", "surrogatepass"))
    elif kind == "jsonl":
        changed = [mutations.mutated_tree(random, edit) for edit in tree["edits"]]
        content = b"\n".join(mutations.written_tree(random, edit, "json") for edit in changed)
    else:
        content = mutations.written_tree(random, mutations.mutated_tree(random, tree), kind)
    path.write_bytes(content)
    if random.random() < 0.03:
        mutations.replaced_by_odd_file(random, path, case / "marker")
    return path.name


def manifests(case: Path, base: Path, random: Random) -> FuzzCase:
    """`datasets check` of a mutated manifest."""
    return FuzzCase(["datasets", "check", _manifest(case, base, random)], never_says=["\n! "])


def manifests_of_edits(case: Path, base: Path, random: Random) -> FuzzCase:
    """`edit --dry_run` of a mutated manifest."""
    manifest = _manifest(case, base, random)
    return FuzzCase(
        ["edit", "--dry_run", f"--model={GOLDEN_MODEL}", f"--manifest={manifest}", "--out=out", *SMALL[:1], *SMALL[4:]]
    )


def _clip(case: Path, base: Path, random: Random) -> tuple[str, str]:
    """A mutated clip's name; and why it cannot be a clip, where that is sure."""
    marker = case / "marker"
    name = random.choice(("clip.webp", "clip.mp4", "clip.gif", "clip.png", "folder"))
    if name == "folder":
        shutil.copytree(base / "clips" / name, case / name)
        mutations.mutated_folder(random, case / name, marker)
        return name, ""
    kind = random.randrange(8)
    path = case / name
    if random.random() < 0.15:
        name = random.choice(("turned.jpg", "titled.mp4", "titled.avi", "fast.mp4"))
        shutil.copy(base / "clips" / name, case)
        return name, ""
    if kind == 0:
        return "missing.mp4", "there is none"
    if kind == 1:
        path.write_bytes(mutations.foreign_picture(random, marker))
        return name, "it is of no format that may be read"
    if kind == 2:
        path.write_bytes(random.choice((mutations.picture_bomb, mutations.archive_bomb))(random))
        return name, ""
    shutil.copy(base / "clips" / name, path)
    if kind == 3:
        mutations.replaced_by_odd_file(random, path, marker)
        return name, "it is no clip"
    path.write_bytes(mutations.mutated_bytes(random, path.read_bytes()))
    return name, ""


def clips(case: Path, base: Path, random: Random) -> FuzzCase:
    """`datasets check` of a sound manifest whose clip is mutated."""
    clip, why = _clip(case, base, random)
    tree = own_manifest(clip)
    if random.random() < 0.3:  # a truth in its place, whose kinds are others
        tree["edits"][0]["truth"] = {random.choice(("mask", "flow", "occlusion", "clip")): clip}
    (case / "manifest.json").write_text(json.dumps(tree), encoding="utf-8")
    return FuzzCase(["datasets", "check", "manifest.json"], must_fail=why, never_says=["\n! "])


def clips_of_edits(case: Path, base: Path, random: Random) -> FuzzCase:
    """An edit of a mutated clip, done or only foretold."""
    clip, why = _clip(case, base, random)
    dry = ["--dry_run"] if random.random() < 0.7 else []
    words = ["edit", *dry, f"--model={GOLDEN_MODEL}", f"--clip={clip}", "--source=a cat", "--target=a dog", "--id=x"]
    makes = () if dry else ("out/fatezero/x/meta.json", "out/fatezero/x/frames/00000.png")
    return FuzzCase([*words, "--out=out", *SMALL], must_fail=why, makes=makes)


CONFIG: Mapping[str, Any] = {
    "steps": 2,
    "guidance_scale": 7.5,
    "key_frames": ["self", "middle"],
    "norm_scope": "clip",
    "fusion": {"word_map": "replace", "cross_window": [0, 0.8], "self_window": [0, 0.5], "reweight": {"dog": 2.0}},
    "blending": {"threshold": 0.3, "mask_downsampling": 4, "latent_window": [0.2, 0.8]},
    "edited_words": ["cat"],
    "seed": 1,
    "device": "cpu",
    "threads": 1,
    "frames": 2,
    "height": 64,
    "width": 64,
    "dtype": "float32",
    "backend": "auto",
    "chunk": 2,
    "variant": "v",
    "devices": 1,
}


def configs(case: Path, base: Path, random: Random) -> FuzzCase:
    """`edit --dry_run` under a mutated configuration, in a file or as options."""
    tree = mutations.mutated_tree(random, CONFIG)
    words = ["edit", "--dry_run", f"--model={GOLDEN_MODEL}", f"--clip={base / 'clips' / 'clip.webp'}", "--out=out"]
    words += ["--source=a cat", "--target=a dog"]
    if random.random() < 0.6:
        (case / "config.yaml").write_bytes(mutations.written_tree(random, tree, "yaml"))
        return FuzzCase([*words, "--config=config.yaml"])
    values = tree if isinstance(tree, dict) else {"steps": tree}
    options = [f"--{name}={_as_word(value)}" for name, value in values.items()]
    return FuzzCase([*words, *(option.replace("\0", "") for option in options)])


def _as_word(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        return "[" * 3000


def prompts(case: Path, base: Path, random: Random) -> FuzzCase:
    """`edit --dry_run` of odd prompts, words, ids and names."""
    odd = [mutations.odd_text(random).replace("\0", "") for _ in range(6)]
    words = [
        "edit",
        "--dry_run",
        f"--model={GOLDEN_MODEL}",
        f"--clip={base / 'clips' / 'clip.webp'}",
        "--out=out",
        *SMALL,
    ]
    options = [f"--source=a cat {odd[0]}", f"--target=a dog {odd[1]}", f"--edited_words={odd[2]}", f"--id={odd[3]}"]
    options += [f"--variant={odd[4]}", f"--model={odd[5]}"]
    return FuzzCase([*words, "--source=a cat", "--target=a dog", *random.sample(options, random.choice((1, 1, 2)))])


FOREIGN_PARTS: tuple[dict[str, Any], ...] = (
    {"_class_name": ["evil", "EvilPipe"]},
    {"_class_name": "pipeline.py"},
    {"unet": ["evil", "EvilPipe"]},
    {"vae": ["os", "system"]},
    {"scheduler": ["subprocess", "Popen"]},
    {"auto_map": {"x": "evil.EvilPipe"}},
)


def checkpoints(case: Path, base: Path, random: Random) -> FuzzCase:
    """`edit --dry_run` with a mutated checkpoint."""
    model, marker = case / "model", case / "marker"
    shutil.copytree(random.choice((GOLDEN_MODEL, base / "tuned" / "model")), model)
    if random.random() < 0.3:
        for name in ("evil.py", "pipeline.py", "unet/evil.py", "modeling.py"):
            (model / name).write_bytes(mutations.evil_module(marker))
        index = yaml.safe_load((model / "model_index.json").read_text(encoding="utf-8"))
        index |= random.choice(FOREIGN_PARTS)
        (model / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    else:
        mutations.mutated_folder(random, model, marker)
    words = ["edit", "--dry_run", "--model=model", f"--clip={base / 'clips' / 'clip.webp'}", "--source=a cat"]
    return FuzzCase([*words, "--target=a dog", "--out=out", *SMALL])


def published(case: Path, base: Path, random: Random) -> FuzzCase:
    """`convert` of a mutated checkpoint."""
    shutil.copytree(base / "published", case / "theirs")
    mutations.mutated_folder(random, case / "theirs", case / "marker")
    return FuzzCase(["convert", "theirs", "ours"], makes=["ours/model_index.json", "ours/temporal/model.safetensors"])


def caches(case: Path, base: Path, random: Random) -> FuzzCase:
    """`cache` of a mutated folder."""
    shutil.copytree(base / "cache", case / "cache")
    one, other = sorted((case / "cache").glob("*/*.safetensors"))
    if random.random() < 0.15:
        one.rename(case / "between")
        other.rename(one)
        (case / "between").rename(other)
        return FuzzCase(["cache", "verify", "cache"], must_fail="two entries' files were swapped")
    before = one.read_bytes(), other.read_bytes()
    mutations.mutated_folder(random, case / "cache", case / "marker")
    action = random.choice(
        (["ls", "cache"], ["verify", "cache"], ["verify", "cache"], ["prune", "cache", "--cache_gb=1e-6"])
    )
    after = tuple(
        path.read_bytes() if path.is_file() and path.lstat().st_size < 2**30 else b"" for path in (one, other)
    )
    harmed = "an entry was harmed" if action[0] == "verify" and before != after else ""
    return FuzzCase(["cache", *action], must_fail=harmed)


def runs(case: Path, base: Path, random: Random) -> FuzzCase:
    """What reads run folders, on a mutated one."""
    shutil.copytree(base / "run", case / "run")
    mutations.mutated_folder(random, case / "run", case / "marker")
    return random.choice(
        (
            FuzzCase(["status", "run"], never_says=[" failed", " missing", " other"]),
            FuzzCase(["report", "run"], makes=["run/index.html"]),
            FuzzCase(["sheet", "run", "--out=sheet.png"], makes=["sheet.png"]),
            FuzzCase(["leaderboard", "run"], makes=["run/leaderboard.md", "run/leaderboard.json"]),
            FuzzCase(["evaluate", "run", "--metrics=psnr*"], makes=["run/evaluation/rows.jsonl"]),
        )
    )


def tunings(case: Path, base: Path, random: Random) -> FuzzCase:
    """A finished tuning, asked for again in a mutated folder."""
    shutil.copytree(base / "tuned", case / "tuned")
    mutations.mutated_folder(random, random.choice((case / "tuned", case / "tuned" / "checkpoints")), case / "marker")
    clip = base / "clips" / "clip.webp"
    words = ["tune", f"--model={GOLDEN_MODEL}", f"--clip={clip}", "--prompt=a cat", "--rank=2", "--steps=1", *SMALL[1:]]
    return FuzzCase([*words, "--out=tuned"], makes=["tuned/model/model_index.json"])


Target = Callable[[Path, Path, Random], FuzzCase]
# With the share of inputs that each gets: those that load networks take seconds.
TARGETS: Mapping[Target, int] = {
    manifests: 34,
    clips: 22,
    caches: 14,
    runs: 16,
    configs: 3,
    prompts: 3,
    published: 4,
    manifests_of_edits: 2,
    clips_of_edits: 2,
    checkpoints: 2,
    tunings: 1,
}
