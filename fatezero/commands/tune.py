"""`fatezero tune`: an image model becomes a video model of one clip, or a video transformer learns it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Any

from fatezero.config import ModelOptions
from fatezero.errors import UnforeseenError, UserError, attempt
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import complain, quoted, say
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import FrameSelection

TRACE = "failure.log"  # beside what a tuning writes


def tune(options: TuningConfig, networks: ModelOptions) -> int:
    r"""Tune a checkpoint on a clip, or one on each clip of a manifest.

    Examples:
        fatezero tune --clip jeep.mp4 --prompt "a jeep" --out runs/jeep
        fatezero edit --model runs/jeep/model --clip jeep.mp4 \
            --source "a jeep" --target "a car"

    Returns:
        0 if every tuned checkpoint is there, 1 if any failed.

    Raises:
        UserError: for what a single tuning refuses, and a manifest without edits of the categories asked for.
    """
    if options.manifest is None:
        return _tell(options, networks)
    failed = 0
    for one in _each_clip(options):
        say(f"{one.out}: {one.prompt}")
        made = attempt(partial(_tell, one, networks))
        if isinstance(made, UserError):  # one clip's failure stops no other
            complain(f"{one.clip}: {made}")
            _keep_trace(made, one.out)
            failed = 1
    return failed


def _keep_trace(failure: UserError, out: Path) -> None:
    """Where nobody foresaw an error, its trace helps whoever mends it."""
    if isinstance(failure, UnforeseenError) and failure.__cause__ is not None:
        with suppress(UserError):  # the disk may be what failed
            replace_text(out / TRACE, "".join(format_exception(failure.__cause__)))


def _tell(options: TuningConfig, networks: ModelOptions) -> int:
    from fatezero.training.tuning import tune_one

    words = ["--model", str(tune_one(options, networks)), *_said_again(networks)]
    words += ["--clip", str(options.clip), "--source", options.prompt or ""]
    say(f"try: fatezero edit {shlex.join(words)} --target …")
    return 0


def _said_again(networks: ModelOptions) -> list[str]:
    """Options of the model that the tuned one does not hold, as an edit takes them."""
    chosen = {
        "--weights-variant": [networks.weights_variant] if networks.weights_variant else [],
        "--embedding": networks.embedding,
        "--clip-skip": [str(networks.clip_skip)] if networks.clip_skip else [],
    }
    return [word for option, values in chosen.items() if values for word in (option, *values)]


def _each_clip(options: TuningConfig) -> list[TuningConfig]:
    """One tuning for each clip; its prompt is the source prompt of the clip's first edit."""
    from fatezero.data.manifest import read_manifest

    requests = read_manifest(str(options.manifest), options.root).requests
    wanted = [request for request in requests if not options.categories or request.category in options.categories]
    if not wanted:
        raise UserError(f"{options.manifest} has no edits of category {', '.join(options.categories)}.")
    tunings: dict[str, TuningConfig] = {}
    for request in wanted:
        if not request.has_source:
            raise UserError(
                f"{options.manifest}: the edit {quoted(request.id)} has no clip to tune on; state its clip."
            )
        clip, name = request.clip.path, Path(request.clip.path).stem
        own: dict[str, Any] = {
            field.name: getattr(request.clip, field.name)
            for field in fields(FrameSelection)
            if getattr(request.clip, field.name) != field.default
        }
        one = replace(
            options, manifest=None, root=None, clip=clip, prompt=request.source_prompt, out=options.out / name, **own
        )
        if tunings.setdefault(name, one).clip != clip:
            raise UserError(f"{clip} and {tunings[name].clip} have one name, which their models' folders cannot share.")
    return list(tunings.values())
