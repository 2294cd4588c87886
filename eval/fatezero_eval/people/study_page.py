"""A study: one page that shows raters pairs of edited videos without a name, and the key to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fatezero.data.files import json_digest
from fatezero.data.manifest import read_manifest
from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import quoted
from fatezero_eval.file_names import PAGE
from fatezero_eval.pages.media import Media
from fatezero_eval.pages.page import Looks, fill
from fatezero_eval.people.rivals import Rivals, collect
from fatezero_eval.people.study_key import StudyKey, Trial, write_key
from fatezero_eval.people.study_options import StudyOptions, TheirVideos
from fatezero_eval.people.trials import ShownEdit, Tiles, show_edit
from fatezero_eval.scoring.scoring_jobs import ScoringJob

LOOKS = Looks(("page.css", "study.css"), ("elements.js", "study.js"))


@dataclass(frozen=True)
class WrittenStudy:
    """A study on the disk.

    Attributes:
        page: what raters are given.
        key: what they are not given.
        pairs: how many pairs a rater is asked, checks among them.
        notes: a sentence for each video that is not of its source's size or length, and each method without all edits.
        problems: a sentence for each thing that is left out.
    """

    page: Path
    key: Path
    pairs: int
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def write_study(
    runs: Sequence[Path],
    theirs: Sequence[TheirVideos],
    options: StudyOptions,
    out: Path,
    manifest: str | Path | None = None,
    root: str | None = None,
) -> WrittenStudy:
    """Write `index.html` and `study-key.json` into a folder; equal runs and options give equal bytes.

    Every video is encoded anew, the same way, from its frames. The page needs nothing beside it and asks no network.

    Args:
        runs: run folders.
        theirs: methods whose videos lie outside any run; they need a manifest.
        options: what is shown and asked.
        out: folder to write to.
        manifest: the edits; None takes what the runs' records say.
        root: folder that the manifest's paths start from; the manifest's own by default.

    Raises:
        UserError: no edit has results of two methods that can be shown, or a run or the manifest cannot be read.
    """
    rivals = collect(runs, theirs, read_manifest(manifest, root) if manifest else None)
    media, problems = Media(), rivals.problems
    shown = _shown(_choose(rivals, options), options, media, problems)
    trials = _shuffled(shown, options)
    if all(trial.right is not None for _, trial, _ in trials.values()):
        raise UserError("\n".join(["No edit has two videos that can be compared.", *problems]))
    document = _document(shown, trials, options)
    study = json_digest([document, list(media.texts)])
    key = write_key(out, _key(study, options, runs, {name: trial for name, (_, trial, _) in trials.items()}))
    page = out / PAGE
    replace_text(page, fill({"study": study, **document}, media, LOOKS))
    pairs = sum(trial["shared"] for trial in document["trials"]) + document["drawn"]
    return WrittenStudy(page, key, pairs, tuple(rivals.notes), tuple(problems))


def _key(study: str, options: StudyOptions, runs: Sequence[Path], trials: Mapping[str, Trial]) -> StudyKey:
    sides = [side for trial in trials.values() for side in (trial.first, trial.second)]
    return StudyKey(
        study=study,
        questions=options.asked,
        ties=options.ties,
        methods=tuple(sorted({side.method for side in sides})),
        runs=tuple(map(str, runs)),
        trials=trials,
    )


def _choose(rivals: Rivals, options: StudyOptions) -> list[Mapping[str, ScoringJob]]:
    """Of each edit the results of the methods asked for; of each category the first edits that have two."""
    unknown = [name for name in options.variants if name not in rivals.methods]
    if unknown:
        raise UserError(f"There is no method {quoted(unknown[0])} here; choose some of {', '.join(rivals.methods)}.")
    wanted = options.variants or rivals.methods
    chosen: list[Mapping[str, ScoringJob]] = []
    taken, alone, lacking = Counter[str](), [], Counter[str]()
    for edit, results in rivals.of_edit.items():
        own = {name: job for name, job in results.items() if name in wanted}
        if len(own) < 2:
            alone.append(edit)
            continue
        category = next(iter(own.values())).request.category
        if options.edits is None or taken[category] < options.edits:
            chosen.append(own)
            lacking.update(name for name in wanted if name not in own)
        taken[category] += 1
    if alone:
        rivals.problems.append(f"Not shown, since fewer than two methods have them: {', '.join(alone)}.")
    rivals.notes.extend(
        f"{name} lacks {count} of {len(chosen)} edits: fewer pairs ask about it." for name, count in lacking.items()
    )
    return chosen


def _shown(
    chosen: Sequence[Mapping[str, ScoringJob]], options: StudyOptions, media: Media, problems: list[str]
) -> list[ShownEdit]:
    """The edits that can be shown; what cannot is noted. Checks are spread over them by chance."""
    rng = np.random.default_rng(options.seed)
    checked = np.resize(rng.permutation(len(chosen)), options.checks if chosen else 0)
    shown = []
    for number, results in enumerate(chosen):
        checks = int((checked == number).sum())
        found = attempt(partial(show_edit, results, checks, options.height, media, options.seed))
        if isinstance(found, UserError):
            problems.append(str(found))
        else:
            shown.append(found)
            problems += found.problems
    return shown


def _shuffled(shown: Sequence[ShownEdit], options: StudyOptions) -> dict[str, tuple[int, Trial, Tiles]]:
    """By id, the place of its edit, the pair and its tiles, all in an order by chance."""
    trials = [(place, *pair) for place, edit in enumerate(shown) for pair in edit.trials]
    chance = np.random.default_rng([options.seed, *(edit.chance for edit in shown)])
    order = chance.permutation(len(trials))
    return {f"pair-{number:04d}": trials[index] for number, index in enumerate(order.tolist(), start=1)}


def _document(
    shown: Sequence[ShownEdit], trials: Mapping[str, tuple[int, Trial, Tiles]], options: StudyOptions
) -> dict[str, Any]:
    """What the page is told.

    Checks are asked of everybody; so are as many other pairs, which hide them, and which let raters be compared with
    one another where each is asked some pairs only.
    """
    asked = [name for name, (_, trial, _) in trials.items() if trial.right is None]
    each = len(asked) if options.pairs is None else min(options.pairs, len(asked))
    common = asked if each == len(asked) else asked[: min(options.checks, each)]
    return {
        "name": options.title,
        "questions": [{"name": name, "text": text} for name, text in options.asked.items()],
        "ties": options.ties,
        "edits": [edit.entry for edit in shown],
        "trials": [
            {"id": name, "edit": place, "tiles": tiles, "shared": trial.right is not None or name in common}
            for name, (place, trial, tiles) in trials.items()
        ],
        "drawn": each - len(common),
    }
