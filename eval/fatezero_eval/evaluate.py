"""From run folders, or anyone's videos, to rows.

Each item (one clip, edit, variant and seed) is scored on its own and kept in a small file named by the
content of everything that goes into it. A run that was killed goes on where it stopped, an edit that was made
again is scored again, and processes never write to the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fatezero.data.files import content_digest, replacing
from fatezero.data.manifest import Manifest, read_manifest, request_from_json
from fatezero.data.video import iter_frames, probe
from fatezero.errors import UserError
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.alignment import AlignmentReport, align
from fatezero_eval.config import EvaluateRun, EvaluateVideos, Scoring
from fatezero_eval.provenance import Provenance, versions, write_provenance
from fatezero_eval.rows import BASELINES, Row, from_json, to_json, write_rows


@dataclass(frozen=True, kw_only=True)
class Item:
    """One clip, edit, variant and seed.

    Attributes:
        request: what was asked.
        variant: the method.
        edited: the edited frames.
        own_mask: where the method changed something.
        mask: where the edit belongs.
        true_edit: the right result.
        true_flow: `.npz` with the known motion.
        notes: what is done to the frames before scoring.
    """

    request: EditRequest
    variant: str
    edited: ClipSpec
    own_mask: ClipSpec | None = None
    mask: ClipSpec | None = None
    true_edit: ClipSpec | None = None
    true_flow: Path | None = None
    notes: str = ""


Render = Callable[[Mapping[str, Any], Path], Mapping[str, Any]]
"""From a manifest's `truth` and a folder to the paths of what it put there (`clip`, `mask`, `flow`, each if
known); it may find there what it put there before."""


@dataclass(frozen=True)
class Truths:
    """What is known of the right results.

    Attributes:
        manifest: the benchmark; None knows nothing.
        render: makes the files of a truth stated as a recipe; None where paths are stated.
        folder: where those files go.
    """

    manifest: Manifest | None
    render: Render | None
    folder: Path

    def of(self, request: EditRequest) -> Mapping[str, Any]:
        """Paths of the true edit (`clip`), the edit mask (`mask`) and the motion (`flow`), if known."""
        stated = self.manifest.truth.get(request.id, {}) if self.manifest else {}
        if self.render is None or not stated:
            return stated
        name = blake2b(json.dumps(stated, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
        return self.render(stated, self.folder / name)


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        rows: one for each item and metric, items in a fixed order.
        failures: by item, why it could not be scored.
        lines: path of `rows.jsonl`.
        table: path of `rows.parquet`.
        alignment: for foreign videos, how they match the manifest.
    """

    rows: tuple[Row, ...]
    failures: Mapping[str, str]
    lines: Path
    table: Path
    alignment: AlignmentReport | None = None


def evaluate_run(config: EvaluateRun, render: Render | None = None) -> Evaluation:
    """Score every finished edit of a run folder, with `source` and `no edit` rows beside them.

    Args:
        config: what to score and how.
        render: makes the files of a truth that a manifest states as a recipe.

    Raises:
        UserError: there is no finished edit, or a metric, model or manifest is not usable.
    """
    manifest = read_manifest(config.manifest) if config.manifest else None
    out = config.out or config.run / "evaluation"
    items = run_items(config.run, Truths(manifest, render, out / "truth"))
    if not items:
        raise UserError(f"{config.run}: no finished edit (<variant>/<edit id>/meta.json); edit some clips first.")
    return evaluate_items(items, config, out, manifest)


def evaluate_videos(config: EvaluateVideos, render: Render | None = None) -> Evaluation:
    """Score someone else's videos against a manifest, with `source` and `no edit` rows beside them.

    Edits without a usable video are reported in `alignment` and in `failures`, never dropped in silence.

    Args:
        config: what to score and how.
        render: makes the files of a truth that a manifest states as a recipe.

    Raises:
        UserError: nothing can be scored, or a metric, model or manifest is not usable.
    """
    manifest = read_manifest(config.manifest)
    report = align(manifest, config.videos, resize=config.resize, trim=config.trim)
    requests = {request.id: request for request in manifest.requests}
    truths = Truths(manifest, render, config.out / "truth")
    items = []
    for match in report.matches:
        if match.problem or match.video is None or match.source is None or match.edited is None:
            continue
        frames = min(match.source.frames, match.edited.frames)
        request = requests[match.edit]
        request = replace(request, clip=replace(request.clip, frames=frames))
        size = {"height": match.source.height, "width": match.source.width}
        edited = ClipSpec(path=str(match.video), frames=frames, fit="stretch", **size)
        items.append(_item(request, config.method, edited, truths, notes="; ".join(match.notes)))
    if not items:
        raise UserError(f"{config.videos}: no video can be scored.\n{report}")
    evaluation = evaluate_items(items, config, config.out, manifest)
    unmatched = {f"{config.method}/{m.edit}": m.problem for m in report.matches if m.problem}
    return replace(evaluation, alignment=report, failures={**evaluation.failures, **unmatched})


def evaluate_items(items: Sequence[Item], config: Scoring, out: Path, manifest: Manifest | None = None) -> Evaluation:
    """Score items that were not scored yet, in one process or several, and write all rows and their provenance.

    Raises:
        UserError: a metric or model is not usable.
    """
    from fatezero_eval.models import load_models, selected  # noqa: PLC0415

    everything = [*items, *_baselines(items)]
    metrics = selected(config)
    config = replace(config, cache=config.cache or out / "cache")
    models = load_models(config, metrics)
    setting = json.dumps([[m.id for m in metrics], models.identity, config.edit_mask])
    files = {_name(item): out / "items" / f"{_fingerprint(item, setting)}.json" for item in everything}
    missing = [item for item in everything if _stored(files[_name(item)]) is None]
    tasks = [Task(item, files[_name(item)]) for item in missing]
    if config.processes > 1 and len(tasks) > 1:
        from fatezero_eval.processes import run_in_processes  # noqa: PLC0415

        run_in_processes(tasks, config)
    else:
        for task in tasks:
            run_task(task, config, models)
    rows: list[Row] = []
    failures = {}
    for item in everything:
        stored = _stored(files[_name(item)])
        if stored is not None:
            rows += stored
        else:
            failures[_name(item)] = _failure(files[_name(item)])
    lines, table = write_rows(out, rows)
    provenance = Provenance(
        rows=content_digest(lines),
        manifest=manifest.name if manifest else "",
        manifest_digest=_digest(content_digest(manifest.path)) if manifest else "",
        edits={item.request.id: _of_edit(item.request) for item in items if _name(item) not in failures},
        models=models.used,
        edit_mask=config.edit_mask,
        metrics=tuple(metric.id for metric in metrics),
        device=config.device,
        versions=versions(),
    )
    write_provenance(out, provenance)
    return Evaluation(tuple(rows), failures, lines, table)


@dataclass(frozen=True)
class Task:
    """An item to score and the file its rows go to."""

    item: Item
    file: Path


def run_task(task: Task, config: Scoring, models: Any) -> None:
    """Score one item and keep its rows; an item that cannot be scored leaves the reason instead."""
    from fatezero_eval.scoring import score  # noqa: PLC0415

    reason = task.file.with_suffix(".failed")
    try:
        clip = _open(task.item, config)
        scores = score(clip, models.metrics, models.shared)
    except UserError as error:
        with replacing(reason) as partial:
            partial.write_text(str(error), encoding="utf-8")
        return
    request = task.item.request
    rows = [
        Row(
            clip=clip_name(request.clip),
            edit=request.id,
            category=request.category,
            variant=task.item.variant,
            seed=request.seed,
            notes=task.item.notes,
            **asdict(s),
        )
        for s in scores
    ]
    with replacing(task.file) as partial:
        partial.write_text("".join(f"{to_json(row)}\n" for row in rows), encoding="utf-8")
    reason.unlink(missing_ok=True)


def clip_name(clip: ClipSpec) -> str:
    """Short name of a source clip: the end of its path, and where in it the frames begin."""
    name = "/".join(Path(clip.path).parts[-2:])
    return f"{name}@{clip.start}" if clip.start else name


def run_items(run: Path, truths: Truths) -> list[Item]:
    """The finished edits of a run folder, by variant and folder.

    Raises:
        UserError: there is no such folder, or an edit's record is damaged.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; check the path.")
    items = []
    for meta in sorted(run.glob("*/*/meta.json")):
        folder = meta.parent
        try:
            request = request_from_json(json.loads(meta.read_text(encoding="utf-8"))["request"], str(meta))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{meta}: not readable as an edit's record ({error}); edit the clip again.") from error
        masks = folder / "masks"
        own_mask = ClipSpec(path=str(masks)) if masks.is_dir() else None
        edited = ClipSpec(path=str(folder / "frames"))
        items.append(_item(request, folder.parent.name, edited, truths, own_mask=own_mask))
    return items


def _item(
    request: EditRequest,
    variant: str,
    edited: ClipSpec,
    truths: Truths,
    *,
    own_mask: ClipSpec | None = None,
    notes: str = "",
) -> Item:
    """The item with what is known of its truth, cut to the request's frames."""
    truth = truths.of(request)
    named = {
        name: replace(request.clip, path=str(truth[key])) if key in truth else None
        for name, key in (("mask", "mask"), ("true_edit", "clip"))
    }
    flow = Path(truth["flow"]) if "flow" in truth else None
    return Item(
        request=request,
        variant=variant,
        edited=edited,
        own_mask=own_mask,
        true_flow=flow,
        notes=notes,
        **named,
    )


def _baselines(items: Sequence[Item]) -> list[Item]:
    """For each edit once: the source judged by its own prompt, and the source handed in as the edit."""
    baselines = {}
    source, no_edit = BASELINES
    for item in items:
        request = item.request
        # of the source it is asked to show what it shows, rather than what the edit should show
        own = replace(request, source_prompt=request.target_prompt, target_prompt=request.source_prompt)
        unedited = replace(item, edited=request.clip, own_mask=None, notes="")
        baselines[source, request.id, request.seed] = replace(
            unedited, request=own, variant=source, mask=None, true_edit=None
        )
        baselines[no_edit, request.id, request.seed] = replace(unedited, variant=no_edit)
    return [baselines[key] for key in sorted(baselines, reverse=True)]


def _open(item: Item, config: Scoring) -> Any:
    from fatezero_eval.clips import EditedClip  # noqa: PLC0415
    from fatezero_eval.flow import read_flow  # noqa: PLC0415

    mask = item.mask if config.edit_mask == "given" else item.own_mask
    specs = {"mask": mask, "own_mask": item.own_mask, "true_edit": item.true_edit}
    return EditedClip(
        edited=partial(iter_frames, item.edited),
        source=partial(iter_frames, item.request.clip),
        source_prompt=item.request.source_prompt,
        target_prompt=item.request.target_prompt,
        true_flow=read_flow(item.true_flow) if item.true_flow else None,
        **{name: partial(iter_frames, spec) if spec else None for name, spec in specs.items()},
    )


def _name(item: Item) -> str:
    return f"{item.variant}/{item.request.id}/{item.request.seed}"


def _stored(file: Path) -> list[Row] | None:
    try:
        return [from_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError):
        return None  # not there yet, or damaged: score again


def _failure(file: Path) -> str:
    reason = file.with_suffix(".failed")
    return reason.read_text(encoding="utf-8") if reason.is_file() else "its process ended before it was scored"


def _fingerprint(item: Item, setting: str) -> str:
    """Digest of everything a score depends on, and of the names its rows carry; not of where files lie."""
    values = asdict(item)
    values["clip"] = clip_name(item.request.clip)
    for owner, key in (
        (values["request"], "clip"),
        *((values, key) for key in ("edited", "own_mask", "mask", "true_edit")),
    ):
        if owner[key]:
            owner[key]["path"] = content_digest(Path(owner[key]["path"]))
    values["true_flow"] = content_digest(item.true_flow) if item.true_flow else None
    return _digest([setting, values])


def _of_edit(request: EditRequest) -> str:
    """Digest of what two methods must share for their scores of an edit to be comparable."""
    clip = request.clip
    info = probe(clip)
    frames = [content_digest(Path(clip.path)), clip.start, clip.stride, clip.fps, clip.fit]
    size = [info.frames, info.height, info.width]  # as settled: a request may leave them open
    return _digest([frames, size, request.source_prompt, request.target_prompt, request.category])


def _digest(values: Any) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
