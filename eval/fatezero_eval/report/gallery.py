"""The edits of a run: for each, its videos, masks, attention and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fatezero.errors import UserError
from fatezero.types import ClipSpec
from fatezero_eval.evaluate import Item, clip_name
from fatezero_eval.report.curves import Judge
from fatezero_eval.report.media import Media, Sheet, attention_strip, sheet_for
from fatezero_eval.report.run import Run, result_folder
from fatezero_eval.rows import BASELINES


def edits(run: Run, media: Media) -> list[dict[str, Any]]:
    """One entry for each edit with a result; what cannot be read has a `problem` in place of a video."""
    by_edit: dict[str, list[Item]] = {}
    for item in run.items:
        by_edit.setdefault(item.request.id, []).append(item)
    return [_edit(by_edit[name], media) for name in run.edits if name in by_edit]


def _edit(items: Sequence[Item], media: Media) -> dict[str, Any]:
    request = items[0].request
    entry: dict[str, Any] = {
        "id": request.id,
        "category": request.category,
        "clip": clip_name(request.clip),
        "source_prompt": request.source_prompt,
        "target_prompt": request.target_prompt,
        "edited_words": list(request.edited_words),
        "attention": _attention(items, media),
    }
    try:
        sheet, fps = sheet_for(request.clip)
    except UserError as error:
        return entry | {"problem": str(error), "panels": []}
    panels = _panels(items, sheet)
    if not sheet.tiles:
        return entry | {"problem": "none of its videos can be read.", "panels": panels}
    return entry | {"fps": fps, "media": media.add(sheet.encode(fps)), "panels": panels} | sheet.layout()


def _panels(items: Sequence[Item], sheet: Sheet) -> list[dict[str, Any]]:
    first, judge = items[0], Judge()
    unedited = replace(first, variant=BASELINES[1], edited=first.request.clip, own_mask=None)
    source = _video(sheet, first.request.clip, first.mask) | _judged(judge, unedited)
    panels = [{"kind": "source", **source}]
    if first.true_edit is not None:
        panels.append({"kind": "truth", **_video(sheet, first.true_edit, first.mask)})
    variants = ({**_judged(judge, item), **_video(sheet, item.edited, item.own_mask)} for item in items)
    return [*panels, *({"kind": "variant", **variant} for variant in variants)]


def _video(sheet: Sheet, clip: ClipSpec, mask: ClipSpec | None) -> dict[str, Any]:
    try:
        tile, frames = sheet.add(clip)
        return {"tile": tile, "frames": frames} | ({"mask": sheet.add(mask)[0]} if mask else {})
    except UserError as error:
        return {"problem": str(error)}


def _judged(judge: Judge, item: Item) -> dict[str, Any]:
    """Whose scores a video has, and the curves that go with them."""
    names = {"variant": item.variant, "seed": item.request.seed}
    try:
        return {**names, "curves": judge.curves(item)}
    except UserError as error:
        return {**names, "problem": str(error)}


def _attention(items: Sequence[Item], media: Media) -> list[dict[str, Any]]:
    """Where each edited word looks; variants with the same inversion share a picture."""
    found: dict[tuple[str, int], list[str]] = {}
    for item in items:
        for path in sorted(result_folder(item).glob("attention_*.png")):
            word = path.stem.split("_", 2)[-1].replace("_", " ")
            seen = found.setdefault((word, media.add(attention_strip(path))), [])
            if item.variant not in seen:
                seen.append(item.variant)
    return [{"word": word, "media": number, "variants": variants} for (word, number), variants in found.items()]
