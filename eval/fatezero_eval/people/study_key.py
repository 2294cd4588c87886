"""The key of a study: which method stood behind each video. Raters never see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fatezero.data.files import read_json
from fatezero.errors import UserError
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import quoted
from fatezero_eval.file_names import STUDY_KEY

_FORMAT = "fatezero-study-key@1"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One video of a pair.

    Attributes:
        method: its name in the study.
        seed: of the edit.
    """

    method: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One pair of videos.

    Attributes:
        edit: the request's id.
        clip: the source clip, as rows name it.
        category: of the edit.
        first: behind the pair's first video.
        second: behind its second.
        right: of a check, which of the two is right, 0 or 1; None where that is the question.
    """

    edit: str
    clip: str
    category: str
    first: Side
    second: Side
    right: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyKey:
    """What a study asked, and of what.

    Attributes:
        study: digest of the page's data, which every answer file states.
        questions: texts by name.
        ties: whether "no difference" was an answer.
        methods: all that are compared.
        runs: folders that they came from, as the command had them.
        trials: by id.
    """

    study: str
    questions: Mapping[str, str]
    ties: bool
    methods: tuple[str, ...]
    runs: tuple[str, ...]
    trials: Mapping[str, Trial]


def write_key(folder: Path, key: StudyKey) -> Path:
    """Write `study-key.json`, whole or not at all."""
    path = folder / STUDY_KEY
    replace_text(path, json.dumps({"format": _FORMAT, **asdict(key)}, indent=1, ensure_ascii=False) + "\n")
    return path


def read_key(study: Path) -> StudyKey:
    """The key in a study's folder, or in a file that is named.

    Raises:
        UserError: it is missing or damaged.
    """
    path = study / STUDY_KEY if study.is_dir() else study
    try:
        key = _key(read_json(path))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: not readable as the key of a study ({error}); name the folder that fatezero study wrote."
        ) from error
    return key


def _key(values: dict[str, Any]) -> StudyKey:
    if values.pop("format", None) != _FORMAT:
        raise ValueError(f"it does not say that it is {_FORMAT}")
    trials = {name: _trial(stated) for name, stated in values.pop("trials").items()}
    methods, runs = tuple(values.pop("methods")), tuple(values.pop("runs"))
    key = StudyKey(**values, methods=methods, runs=runs, trials=trials)
    texts = [key.study, *methods, *runs, *key.questions, *key.questions.values()]
    if not all(isinstance(text, str) for text in texts) or not isinstance(key.ties, bool):
        raise ValueError("its names are no texts")
    unknown = {side.method for trial in trials.values() for side in (trial.first, trial.second)} - {*methods}
    if unknown:
        raise ValueError(f"a trial has the method {quoted(min(unknown))}, which is none of its methods")
    return key


def _trial(values: dict[str, Any]) -> Trial:
    first, second = Side(**values.pop("first")), Side(**values.pop("second"))
    trial = Trial(**values, first=first, second=second)
    sound = all(isinstance(text, str) for text in (trial.edit, trial.clip, trial.category, first.method, second.method))
    if not sound or {type(first.seed), type(second.seed)} != {int} or trial.right not in (None, 0, 1):
        raise ValueError("a trial's fields are of other types")
    return trial
