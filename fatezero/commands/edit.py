"""`fatezero edit`: edit a clip, or all clips of a manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from fatezero.commands.verbs import option
from fatezero.commands.work_options import WorkOptions
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.data.timecode import check_count_or_time
from fatezero.errors import UserError
from fatezero.system.terminal import say
from fatezero.types import ClipSpec, EditRequest, FrameSelection

OF_ONE_EDIT = ("id", "seed", "edited_words", "target_words")


@dataclass(frozen=True, kw_only=True)
class EditOptions(FrameSelection):
    """What to edit, and where the results go.

    Attributes:
        clip: a video file or a folder of images, here or in an object store; by default the shipped clip, of a jeep on
            a road.
        source: prompt that describes the clip; the shipped clip has its own.
        target: prompt that describes the edit.
        edited_words: words of the source prompt that the edit changes; they make the blending mask.
        target_words: words of the target prompt that stand for them, by which latents are blended; by default those
            that stand in their places.
        manifest: a file that lists many edits, in place of clip, source and target.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
        audio: keep the clip's sound beside the edited frames, or drop it.
        seed: seed of a sampled posterior, and of the noise of SDEdit and FlowEdit.
        id: names the result's folder; made from clip and target by default.
        out: folder of the run, or its address in an object store (s3://…, gs://…).
        variant: names this configuration within the run.
        redo: replace results that were made with other settings.
    """

    clip: str | None = None
    source: str | None = None
    target: str | None = None
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    manifest: str | None = None
    root: str | None = None
    audio: Literal["keep", "drop"] = "keep"
    seed: int = 0
    id: str | None = None
    out: str = "runs/edit"
    variant: str = "fatezero"
    redo: bool = False

    def __post_init__(self) -> None:
        """Refuse times that are none once, not for each clip of a manifest."""
        check_count_or_time("--start", self.start)
        if self.frames is not None:
            check_count_or_time("--frames", self.frames)


def edit(
    options: EditOptions, networks: ModelOptions, method: MethodConfig, runtime: RuntimeConfig, work: WorkOptions
) -> int:
    r"""Edit a clip, or all clips of a manifest, and write the results; what is there already is kept.

    Examples:
        fatezero edit
        fatezero edit --target "a bus on the road" --edited-words jeep
        fatezero edit --clip jeep.mp4 --source "a jeep on a road" \
            --target "a car on a road" --edited-words jeep --frames 8 \
            --model stable-diffusion-v1-5/stable-diffusion-v1-5
        fatezero edit --steps 50 --feature-reuse 1 --variant slow
        fatezero edit --manifest edits.yaml --out runs/many --devices 2

    Returns:
        0 if every edit is there, 1 if any failed.

    Raises:
        UserError: for options that do not fit each other or the checkpoint, and if a process died.
    """
    from fatezero.commands.shared import checkpoints, perform, vetted
    from fatezero.data.layout import reserved_variant_name
    from fatezero.data.remote import RemoteRun, is_remote
    from fatezero.runs.jobs import make_jobs

    variant = _safe_variant(options.variant)
    if reserved_variant_name(variant):
        raise UserError(f"--variant is {variant!r}, a name of the run folder's own files: choose another.")
    remote = RemoteRun(options.out) if is_remote(options.out) else None
    run = remote.folder if remote else Path(options.out)
    if remote:
        remote.fetch_state()
    checkpoint = checkpoints(networks)
    requests, unfit = vetted(_requests(options), checkpoint, [method])
    jobs = make_jobs(requests, {variant: method}, run, checkpoint)
    return perform(jobs, unfit, networks.model, runtime, work, redo=options.redo, remote=remote)


def _requests(options: EditOptions) -> Sequence[EditRequest]:
    from fatezero import shipped

    single = {"clip": options.clip, "source": options.source, "target": options.target}
    given = [name for name, value in single.items() if value is not None]
    if options.manifest is not None:
        if given:
            raise UserError(f"--{given[0]} and --manifest were both given: a manifest names its own clips and prompts.")
        _refuse(options, OF_ONE_EDIT, "--manifest, which states its own")
        return _of_manifest(options, options.manifest)
    if options.root is not None:
        raise UserError("--root was given without --manifest, whose clip paths it is for.")
    if options.clip is None and options.target is not None:
        return (_with_selection(_of_shipped_clip(options), options),)
    if not given:
        _refuse(options, OF_ONE_EDIT, "the shipped edit's own; give --target as well")
        return (_with_selection(shipped.DEMO, options),)
    if options.clip is None:
        raise UserError("--target is missing: say what the shipped clip should become, or name a --clip.")
    missing = [name for name in ("source", "target") if name not in given]
    if missing:
        raise UserError(f"{option(missing[0])} is missing: one edit needs --clip, --source and --target.")
    clip = {"path": options.clip, **options.selection, "audio": options.audio}
    return (_one_request(options, Path(options.clip).stem, clip, options.source),)


def _of_shipped_clip(options: EditOptions) -> EditRequest:
    """Another edit of the shipped clip."""
    from fatezero.data.manifest import request_to_json
    from fatezero.shipped import DEMO

    source = DEMO.source_prompt if options.source is None else options.source
    return _one_request(options, DEMO.id, request_to_json(DEMO)["clip"], source)


def _of_manifest(options: EditOptions, manifest: str) -> list[EditRequest]:
    from fatezero.data.manifest import read_manifest

    read = read_manifest(manifest, options.root)
    for note in read.notes:
        say(note)
    return [_with_selection(request, options) for request in read.requests]


def _one_request(options: EditOptions, name: str, clip: Mapping[str, Any], source: str | None) -> EditRequest:
    """The edit of a clip, called by a name, that the options describe."""
    from fatezero.data.manifest import request_from_json

    stated = {
        "id": options.id or _slug(f"{name}-{options.target}"),
        "clip": clip,
        "source_prompt": source,
        "target_prompt": options.target,
        "edited_words": list(options.edited_words),
        "target_words": list(options.target_words),
        "seed": options.seed,
    }
    return request_from_json(stated, "the command line")


def _with_selection(request: EditRequest, options: EditOptions) -> EditRequest:
    """The command line's frame range, size and sound, where a manifest's request leaves them open."""
    left_open = [f.name for f in fields(ClipSpec) if getattr(request.clip, f.name) == f.default]
    stated = {**options.selection, "audio": options.audio}
    given = {name: value for name, value in stated.items() if name in left_open}
    return replace(request, clip=replace(request.clip, **given))


def _refuse(options: EditOptions, names: Sequence[str], beside: str) -> None:
    """No option is passed over in silence."""
    for field in fields(EditOptions):
        if field.name in names and getattr(options, field.name) != field.default:
            raise UserError(f"{option(field.name)} was given beside {beside}.")


def _slug(text: str) -> str:
    """Small letters, digits and hyphens; where letters are lost, a digest tells texts apart that look alike."""
    from fatezero.data.files import json_digest

    slug = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
    kept = slug[:80].strip("-") or "edit"
    return kept if slug == kept and text.isascii() else f"{kept}-{json_digest(text, 4)}"


def _safe_variant(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", name):
        raise UserError(f"--variant is {name!r}: it names a folder, so use letters, digits, '.', '_' and '-' alone.")
    return name
