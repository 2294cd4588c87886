"""FateZero's benchmark and its edit configurations, whose settings are stated in our terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fatezero.data.entry import Entry, Lines
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

KEY_FRAMES, DEFAULT_KEY_FRAMES = "SparseCausalAttention_index", [-1, "first"]  # of FateZero's `model_config`
# What the original reads of an entry of `p2p_config`; it passes over anything else.
_P2P_FIELDS = (
    "is_replace_controller",
    "cross_replace_steps",
    "self_replace_steps",
    "use_inversion_attention",
    "eq_params",
    "blend_words",
    "blend_self_attention",
    "blend_latents",
    "blend_th",
)


def our_key_frames(theirs: Iterable[int | str]) -> list[int | str]:
    """FateZero's `SparseCausalAttention_index` in our names."""
    named: dict[int | str, int | str] = {"mid": "middle", 0: "self"}
    return [named.get(frame, frame) for frame in theirs]


def fatezero_bench(path: Path, data: Mapping[str, Any], lines: Lines) -> Iterator[Entry]:
    """FateZero's benchmark (`CLIP/bench_clean_prompt.yaml`): by name, path of frames, source and target."""
    for name, values in data.items():
        entry = Entry.at(path, values, lines, (str(name),))
        entry.refuse_unknown(("path", "source", "target", "sampling_rate"))
        yield entry.restated(
            id=name,
            clip={"path": entry.text("path"), "stride": entry.number("sampling_rate", int, 1)},
            source_prompt=entry.text("source"),
            target_prompt=entry.text("target"),
        )


def fatezero_config(path: Path, data: Mapping[str, Any], lines: Lines) -> Iterator[Entry]:
    """FateZero's edit configurations (`config/*/*.yaml`): one clip, and an edit for each editing prompt.

    The original scales and crops every frame to a square of `image_size`, 512 by default. What it fixes in code is
    stated as settings, so that no checkpoint's recommendation changes it. A result is `sample/step_0_<index>_<seed>`
    for the first of `sample_seeds`.
    """
    dataset = Entry.at(path, data["dataset_config"], lines, ("dataset_config",))
    editing = Entry.at(path, data.get("editing_config"), lines, ("editing_config",))
    if any(dataset.mapping("offset").values()):
        raise dataset.error("offset", "is not supported; crop the frames themselves and leave it at 0.")
    size = dataset.number("image_size", int, 512)
    clip = {
        "path": dataset.text("path"),
        "start": dataset.number("start_sample_frame", int, 0),
        "frames": dataset.number("n_sample_frame", int, 8),
        "stride": dataset.number("sampling_rate", int, 1),
        "height": size,
        "width": size,
    }
    source = dataset.text("prompt")
    model = Entry(path, "line 1", data).mapping("model_config")
    shared = _shared_settings(editing, Entry.at(path, model, lines, ("model_config",)))
    p2p = editing.mapping("p2p_config")
    for index, target in enumerate(editing.words("editing_prompts")):
        stated: dict[str, Any] = {"settings": {"fusion": None, "blending": None}}
        ignored: list[str] = []
        if editing.fields.get("prompt2prompt_edit", True):
            edit = Entry.at(path, p2p.get(index, {}), lines, ("editing_config", "p2p_config", str(index)))
            stated, ignored = fatezero_edit(edit, source, target, shared["steps"], size)
        stated["settings"] = {**shared, **stated["settings"]}
        yield editing.restated(
            id=f"{path.stem}.{index}",
            clip=clip,
            source_prompt=source,
            target_prompt=target,
            seed=data.get("seed", 0),
            extras={"ignored": ignored} if ignored else {},
            **stated,
            **_results(editing, index),
        )


def _results(editing: Entry, index: int) -> dict[str, Any]:
    """Where the original writes an edit; it draws the seed, and so the name, where none is stated."""
    seeds = editing.fields.get("sample_seeds")
    if not isinstance(seeds, list) or not seeds:
        return {}
    name = f"step_0_{index}_{seeds[0]}"
    return {"video": [f"sample/{name}", name]}


def refuse_tuning_config(path: Path, data: Mapping[str, Any]) -> None:
    """FateZero's tuning configurations (`config/tune/*.yaml`) hold no edits, and its first edit ones other names.

    Raises:
        UserError: if this is one of them.
    """
    if "trainer_pipeline_config" in data:
        raise UserError(
            f"{path} is FateZero's configuration of a tuning and lists no edits: give its clip and prompt to "
            "`fatezero tune --clip … --prompt …`."
        )
    if "train_dataset" in data:
        raise UserError(
            f"{path} is an edit configuration of FateZero's first release: rename train_dataset to dataset_config, "
            "validation_sample_logger_config to editing_config, prompts to editing_prompts, masked_self_attention to "
            "blend_self_attention, masked_latents to blend_latents and bend_th to blend_th."
        )


def _shared_settings(editing: Entry, model: Entry) -> dict[str, Any]:
    """What holds for every edit of a configuration; its defaults are not the paper's."""
    frames = model.fields.get(KEY_FRAMES, DEFAULT_KEY_FRAMES)
    if not isinstance(frames, list) or not all(isinstance(frame, int | str) for frame in frames):
        raise model.error(KEY_FRAMES, f"{quoted(frames)} is not a list of key frames.")
    return {
        "key_frames": our_key_frames(frames),
        "key_frames_min_width": model.number("least_sc_channel", int, 0),
        "norm_scope": "clip",
        "steps": editing.number("num_inference_steps", int, 50),
        "guidance_scale": editing.number("guidance_scale", float, 7.5),
    }


def fatezero_edit(
    edit: Entry, source: str, target: str, steps: int, image_size: int
) -> tuple[dict[str, Any], list[str]]:
    """One entry of FateZero's `p2p_config` in our terms: the one place that knows both.

    As there, a number x is the window (0, x); `replace` falls back to `refine` where the prompts have not as
    many words; words that their prompt does not hold have no effect; blending needs its words and a flag.

    Args:
        edit: the entry.
        source: prompt of the clip.
        target: prompt of the edit.
        steps: number of denoising steps.
        image_size: height and width of the frames in pixels.

    Returns:
        Our `settings`, `edited_words` and `target_words`; and what has no effect in the original.
    """
    target_words = target.split(" ")
    ignored = [
        f"{shortened(str(name), 100)}: unknown to the original" for name in edit.fields if name not in _P2P_FIELDS
    ]
    replace = bool(edit.fields.get("is_replace_controller", True))
    if replace and len(source.split(" ")) != len(target_words):
        replace = False
        ignored.append("is_replace_controller: the prompts have not as many words")
    for name in ("cross_replace_steps", "self_replace_steps"):
        if name not in edit.fields:
            raise edit.error(name, "missing; add it.")
    cross = {"default_": 1.0, **edit.mapping("cross_replace_steps")}
    windows = {word: _window(edit, "cross_replace_steps", value) for word, value in cross.items()}
    settings: dict[str, Any] = {
        "fusion.word_map": "replace" if replace else "refine",
        "fusion.cross_window": windows.pop("default_"),
        "fusion.self_window": _window(edit, "self_replace_steps", edit.fields["self_replace_steps"]),
        "fusion.min_downsampling": _fused_downsampling(image_size),
    }
    factors = _factors(edit, ignored)
    for name, by_word in (("fusion.word_windows", windows), ("fusion.reweight", factors)):
        settings[name] = {word: by_word[word] for word in _present(name, by_word, target, "target", ignored)}
    blending, words = _blending(edit, source, target, steps, ignored)
    return {"settings": settings | blending, **words}, ignored


def _present(name: str, words: Iterable[str], prompt: str, which: str, ignored: list[str]) -> list[str]:
    """Words that a prompt holds; the others are noted."""
    there = prompt.split(" ")
    ignored += [f"{name}: {quoted(word)} is not in the {which}" for word in words if word not in there]
    return [word for word in words if word in there]


def _fused_downsampling(image_size: int) -> int:
    """The original fuses layers of at most 32 x 32 queries, of latents of an eighth of the image."""
    downsampling = 1
    while image_size > 8 * 32 * downsampling:
        downsampling *= 2
    return downsampling


def _factors(edit: Entry, ignored: list[str]) -> dict[str, float]:
    """Values are given to words in order; what is left over on either side has no effect."""
    stated = edit.nested("eq_params", edit.mapping("eq_params"))
    words, values = stated.words("words"), stated.fields.get("values") or []
    if not isinstance(values, list):
        raise stated.error("values", f"{quoted(values)} is not a list of numbers.")
    if len(words) != len(values):
        ignored.append(f"eq_params: of {len(words)} words and {len(values)} values those that have no partner")
    factors = edit.nested("eq_params", dict(zip(words, values, strict=False)))
    return {word: factors.number(word, float, 1.0) for word in factors.fields}


def _blending(
    edit: Entry, source: str, target: str, steps: int, ignored: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    words = edit.fields.get("blend_words") or []
    of_attention, of_latents = (bool(edit.fields.get(f"blend_{what}")) for what in ("self_attention", "latents"))
    if not words or not (of_attention or of_latents):
        return {"blending": None}, {}
    if not isinstance(words, list) or not all(isinstance(group, list) for group in words[:2]):
        raise edit.error("blend_words", f"{quoted(words)} is not [[source words], [target words]].")
    edited = _present("blend_words", words[0], source, "source", ignored)
    standing = _present("blend_words", words[1], target, "target", ignored) if len(words) > 1 else []
    if not edited:
        if of_latents and standing:
            ignored.append("blend_latents: the original goes by the target's words alone here")
        return {"blending": None}, {}
    thresholds = edit.fields.get("blend_th", [0.3])
    threshold = thresholds[0] if isinstance(thresholds, list) and thresholds else thresholds
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise edit.error("blend_th", f"{quoted(thresholds)} is not a number, or a list that begins with one.")
    settings = {
        "blending.threshold": threshold,
        "blending.self_attention": of_attention,
        "blending.latent_window": _latent_window(steps) if of_latents else None,
        "blending.latent_words": "both" if standing else "source",
        "blending.mask_downsampling": 4,
    }
    return settings, {"edited_words": edited, "target_words": standing}


def _latent_window(steps: int) -> list[float] | None:
    """The original blends latents after edit step s where int(0.2 N) < s + 1 < int(0.8 N).

    Ends lie in the middle of a step, so that no rounding of the fraction moves them to the next one.
    """
    first, behind = int(0.2 * steps), int(0.8 * steps) - 1
    return [(first + 0.5) / steps, (behind + 0.5) / steps] if first < behind else None


def _window(edit: Entry, name: str, value: Any) -> list[float]:
    window = value if isinstance(value, list) else [0.0, value]
    if len(window) != 2 or not all(isinstance(end, (int, float)) and 0 <= end <= 1 for end in window):
        raise edit.error(name, f"{quoted(value)} is not a share of the steps between 0 and 1, or a pair of them.")
    return [float(end) for end in window]
