"""What `fatezero edit` does between parsing and printing."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fatezero import picturebook
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.data.manifest import read_manifest, request_from_json
from fatezero.diffusion.backbone import choose_device
from fatezero.diffusion.checkpoint import checkpoint_folder, native_size
from fatezero.errors import UserError
from fatezero.lightning.datamodule import EditDataModule, group_requests, sized
from fatezero.lightning.modules import EditingModule
from fatezero.lightning.writers import ResultWriter
from fatezero.options import EditOptions
from fatezero.types import ClipSpec, EditRequest


def edit(options: EditOptions, method: MethodConfig, runtime: RuntimeConfig) -> int:
    """Edit what the options name and write the results.

    Returns:
        0 if every edit was written, 1 if any failed.

    Raises:
        UserError: for options that do not fit each other or the checkpoint.
    """
    folder = Path(options.out) / _safe_name("variant", options.variant)
    requests, unreadable = _at_native_size(_requests(options), checkpoint_folder(options.model))
    jobs = group_requests(requests, method)
    print(f"{len(requests)} edits of {len(jobs)} clips with {options.model}, {method.steps} steps, into {folder}")
    writer = ResultWriter(folder, print)
    if jobs:
        places = {request.id: f"[{i + 1}/{len(requests)}] {request.id}" for i, request in enumerate(requests)}
        module = EditingModule(options.model, runtime, lambda name: StepBar(places[name]), tqdm.write)
        _predict(module, EditDataModule(jobs), writer, choose_device(runtime.device).type)
    failures = [*unreadable, *writer.failures]
    for name, reason in failures:
        print(f"fatezero: {name}: {reason}", file=sys.stderr)
    written = len(requests) + len(unreadable) - len(failures)
    print(
        f"{written} edits written to {folder}; look at side_by_side.mp4 in each." if written else "Nothing was written."
    )
    return 1 if failures else 0


def _requests(options: EditOptions) -> Sequence[EditRequest]:
    single = {"clip": options.clip, "source": options.source, "target": options.target}
    given = [name for name, value in single.items() if value is not None]
    if options.manifest is not None:
        if given:
            raise UserError(f"--{given[0]} and --manifest were both given: a manifest names its own clips and prompts.")
        _refuse(options, ("id", "seed", "edited_words", "target_words"), "--manifest, which states its own")
        return [
            _with_clip_options(request, options) for request in read_manifest(options.manifest, options.root).requests
        ]
    if options.root is not None:
        raise UserError("--root was given without --manifest, whose clip paths it is for.")
    if not given:
        _refuse(options, ("id", "seed", "edited_words", "target_words"), "the shipped clip's own; give --clip as well")
        return (_with_clip_options(picturebook.DEMO, options),)
    missing = [name for name in single if name not in given]
    if missing:
        raise UserError(f"--{missing[0]} is missing: one edit needs --clip, --source and --target.")
    clip = ClipSpec(path=options.clip or "", **_clip_options(options))
    name = options.id or _slug(f"{Path(clip.path).stem}-{options.target}")
    return (
        request_from_json(
            {
                "id": name,
                "clip": {field.name: getattr(clip, field.name) for field in fields(ClipSpec)},
                "source_prompt": options.source,
                "target_prompt": options.target,
                "edited_words": list(options.edited_words),
                "target_words": list(options.target_words),
                "seed": options.seed,
            },
            "the command line",
        ),
    )


def _clip_options(options: EditOptions) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(ClipSpec) if field.name != "path"}


def _with_clip_options(request: EditRequest, options: EditOptions) -> EditRequest:
    """The command line's frame range and size, where a manifest's request leaves them open."""
    open_fields = [f.name for f in fields(ClipSpec) if f.name != "path" and getattr(request.clip, f.name) == f.default]
    given = {name: value for name, value in _clip_options(options).items() if name in open_fields}
    return replace(request, clip=replace(request.clip, **given))


def _refuse(options: EditOptions, names: Sequence[str], beside: str) -> None:
    """No option is passed over in silence."""
    for field in fields(EditOptions):
        if field.name in names and getattr(options, field.name) != field.default:
            raise UserError(f"--{field.name.replace('_', '-')} was given beside {beside}.")


def _at_native_size(
    requests: Sequence[EditRequest], checkpoint: Path
) -> tuple[list[EditRequest], list[tuple[str, str]]]:
    """The requests at the checkpoint's own scale, and those whose clips cannot be read, with the reason."""
    native, unit = native_size(checkpoint)
    ready, unreadable = [], []
    for request in requests:
        try:
            ready.append(replace(request, clip=sized(request.clip, native, unit)))
        except UserError as error:
            unreadable.append((request.id, str(error)))
    return ready, unreadable


def _predict(module: EditingModule, data: EditDataModule, writer: ResultWriter, device: str) -> None:
    from lightning import Trainer  # noqa: PLC0415

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    trainer = Trainer(
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[writer],
        inference_mode=True,
    )
    try:
        trainer.predict(module, data, return_predictions=False)
    except SystemExit as stopped:  # Lightning's way to say that it was interrupted
        raise KeyboardInterrupt from stopped


class StepBar:
    """A bar for each stage of one request."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None  # type: ignore[type-arg]

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if self._bar is None or done == 1:
            self._bar = tqdm(total=total, desc=f"{self._name} {stage}", unit="step")
        self._bar.update()
        if done == total:
            self._bar.close()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:80] or "edit"


def _safe_name(option: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", name):
        raise UserError(f"--{option} is {name!r}: it names a folder, so use letters, digits, '.', '_' and '-' alone.")
    return name
