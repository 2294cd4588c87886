"""Reads manifests, the lists of edits: this project's own and those of the benchmarks in `foreign_manifests.py`."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fatezero.data import foreign_manifests
from fatezero.data.entry import Entry, Lines, load_json, load_json_lines, load_yaml, read_text
from fatezero.data.files import open_local, resolve_inside
from fatezero.data.layout import reserved_result_name
from fatezero.data.remote import is_remote, open_input
from fatezero.data.timecode import count_or_text
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec, EditRequest, FrameSelection

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_REQUEST_FIELDS = tuple(f.name for f in fields(EditRequest))
_CLIP_FIELDS = ("path", *(f.name for f in fields(FrameSelection)), "audio")
_SUFFIXES = (".yaml", ".yml", ".json", ".jsonl", ".csv")
_TRUTH_MAPPINGS = ("recipe", "target")  # what the world of Picturebook is rendered from
TRUTH_PATHS = ("clip", "mask", "flow", "occlusion")


@dataclass(frozen=True)
class Manifest:
    """A list of edits.

    Attributes:
        path: the file or folder it came from.
        name: what it calls itself, otherwise the file's name.
        requests: the edits in the manifest's order.
        truth: by request id, what is known of the right result; its "clip", "mask", "flow" and "occlusion"
            are paths, as they are found from here.
        extras: by request id, what a benchmark says beyond that, under its own names.
    """

    path: Path
    name: str
    requests: tuple[EditRequest, ...]
    truth: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each thing that a benchmark states and that changes nothing."""
        return tuple(
            f"{name}: has no effect, as in the original: {ignored}"
            for name, extras in self.extras.items()
            if isinstance(extras.get("ignored"), list)  # else a benchmark's own word
            for ignored in extras["ignored"]
        )


def read_manifest(path: str | Path, root: str | Path | None = None) -> Manifest:
    """Reads our own fields from yaml, json, jsonl or csv, or a benchmark's manifest.

    Args:
        path: the manifest; for DAVIS, its folder.
        root: the folder that paths start from and may not leave; by default the manifest's own.

    Raises:
        UserError: naming file, line or entry, and field: an unknown, missing or ill-typed field; an id that
            is there twice (capitals count as small letters), is longer than 128 characters, has other ones than
            letters, digits, '.', '_' and '-', or is a name of the run's own files; a path that leads out of `root`.
    """
    local = open_input(path)
    folder = _folder(path, local, root)
    name, entries = _entries(local, folder)
    requests: dict[str, EditRequest] = {}
    taken: dict[str, str] = {}
    truth: dict[str, Mapping[str, Any]] = {}
    extras: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        entry.refuse_unknown((*_REQUEST_FIELDS, "truth"))
        request = _request(entry, folder)
        if earlier := taken.get(request.id.lower()):  # some file systems know no capitals
            by = "an earlier edit" if earlier == request.id else f"the earlier {earlier!r}"
            raise entry.error("id", f"{request.id!r} is taken by {by}; give each its own, also in small letters.")
        taken[request.id.lower()] = request.id
        requests[request.id] = request
        if known := _truth(entry, folder):
            truth[request.id] = known
        if entry.extras:
            extras[request.id] = entry.extras
    if not requests:
        raise UserError(f"{local} lists no edits; add at least one.")
    return Manifest(local, name, tuple(requests.values()), truth, extras)


def is_manifest(path: Path) -> bool:
    """Whether a file or folder is a manifest rather than a clip, by its suffix, or as DAVIS."""
    return foreign_manifests.is_davis(path) if path.is_dir() else path.suffix.lower() in _SUFFIXES


def _folder(path: str | Path, local: Path, root: str | Path | None) -> Path | str:
    """Where clip paths start: a folder here, or the address of one in a store."""
    if root is not None:
        return str(root).rstrip("/") if is_remote(root) else open_local(root)
    if is_remote(path):
        return str(path).rpartition("/")[0]
    return local if local.is_dir() else local.parent


def request_to_json(request: EditRequest) -> dict[str, Any]:
    """The request as JSON holds it, every field stated."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(request)))
    return values


def request_from_json(values: Mapping[str, Any], where: str = "request") -> EditRequest:
    """The request that `request_to_json` stated; its clip's path is taken as it stands.

    Args:
        values: fields by name.
        where: the file they come from, for messages.

    Raises:
        UserError: an unknown, missing or ill-typed field.
    """
    entry = Entry(where, "request", values)
    entry.refuse_unknown(_REQUEST_FIELDS)
    return _request(entry, None)


def _entries(path: Path, folder: Path | str) -> tuple[str, Iterable[Entry]]:
    """The manifest's name, and its edits in our field names."""
    if path.is_dir():
        return path.name, foreign_manifests.davis(path)
    match path.suffix.lower():
        case ".csv":
            return path.stem, _csv_entries(path, folder)
        case ".jsonl":
            return path.stem, _jsonl_entries(path)
        case ".json":
            return _entries_of(path, load_json(path), {}, folder)
        case ".yaml" | ".yml":
            return _entries_of(path, *load_yaml(path), folder)
    raise UserError(f"{path} is no manifest; name a .yaml, .json, .jsonl or .csv file, or DAVIS's folder.")


def _entries_of(path: Path, data: Any, lines: Lines, folder: Path | str) -> tuple[str, Iterable[Entry]]:
    """Tells yaml and json manifests apart by their keys."""
    keys = data if isinstance(data, dict) else {}
    values = list(keys.values())
    if "edits" in keys or isinstance(data, list):
        return _own_entries(path, data, lines)
    foreign_manifests.refuse_tuning_config(path, keys)
    if "dataset_config" in keys:
        return path.stem, foreign_manifests.fatezero_config(path, data, lines)
    if "data" in keys:
        return path.stem, foreign_manifests.v2vbench(path, data, lines, _here(path, folder))
    if values and all(isinstance(value, dict) and "editing_prompt" in value for value in values):
        return path.stem, foreign_manifests.pie(path, data)
    if values and all(isinstance(value, dict) and "target" in value for value in values):
        return path.stem, foreign_manifests.fatezero_bench(path, data, lines)
    raise UserError(
        f"{path} is no manifest known here: write `edits:` with a list of edits, or name one of FateZero "
        "(`dataset_config`, or entries with `target`), V2VBench (`data`) or PIE (with `editing_prompt`)."
    )


def _here(path: Path, folder: Path | str) -> Path:
    """The folder of a benchmark whose manifest leaves open what its files are called."""
    if isinstance(folder, str):
        raise UserError(f"{path}: files of this benchmark are looked up by name, so copy {folder} to this machine.")
    return folder


def _own_entries(path: Path, data: Any, lines: Lines) -> tuple[str, Iterable[Entry]]:
    """A list of edits, or a mapping with `edits` and perhaps a `name`."""
    if isinstance(data, list):
        return path.stem, [Entry.at(path, values, lines, (index,)) for index, values in enumerate(data)]
    head = Entry(path, "line 1", data, {key: lines[key,] for key in data if (key,) in lines})
    head.refuse_unknown(("name", "edits"))
    edits = enumerate(head.items("edits"))
    return head.text("name", path.stem), [Entry.at(path, values, lines, ("edits", index)) for index, values in edits]


def _jsonl_entries(path: Path) -> Iterator[Entry]:
    for number, values in load_json_lines(path):
        yield Entry.at(path, values, {("",): number}, ("",))


def _csv_entries(path: Path, folder: Path | str) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = Counter(rows.fieldnames or ())
        if columns and (most := columns.most_common(1)[0])[1] > 1:
            raise UserError(f"{path}, line 1: the column {quoted(most[0])} stands there twice; keep one.")
        if "Video name" in columns:
            yield from foreign_manifests.tgve(path, _numbered(path, rows), _here(path, folder))
        else:
            for number, row in _numbered(path, rows):
                yield _csv_entry(path, number, row)
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: not CSV ({error}).") from None


def _numbered(path: Path, rows: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    for row in rows:
        if None in row or None in row.values():
            raise UserError(
                f"{path}, line {rows.line_num}: not as many cells as the header has; quote cells with commas."
            )
        yield rows.line_num, row


def _csv_entry(path: Path, line: int, row: Mapping[str, str]) -> Entry:
    """Words are parted by spaces, fields of the clip have their own columns, an empty cell is the default."""
    cells: dict[str, Any] = {column: cell.strip() for column, cell in row.items() if cell.strip()}
    entry = Entry(path, f"line {line}", cells)
    for column in ("start", "frames"):
        if column in cells:
            cells[column] = count_or_text(cells[column])
    for column in ("stride", "fps", "height", "width", "stream", "seed"):
        if column in cells:
            try:
                cells[column] = float(cells[column]) if column == "fps" else int(cells[column])
            except ValueError:
                raise entry.error(column, f"{quoted(cells[column])} is not a number.") from None
    for column in ("edited_words", "target_words"):
        if column in cells:
            cells[column] = cells[column].split()
    if "clip" in cells:
        clip = {name: cells.pop(name) for name in _CLIP_FIELDS if name in cells}
        cells["clip"] = {"path": cells["clip"], **clip}
    return entry


def _request(entry: Entry, folder: Path | str | None) -> EditRequest:
    name = entry.text("id")
    if not _ID.fullmatch(name):
        raise entry.error(
            "id", f"{quoted(name)} may only hold letters, digits, '.', '_' and '-', '.' not in front, at most 128."
        )
    if reserved_result_name(name):
        raise entry.error("id", f"{name!r} could be one of the run's own files; choose another ending.")
    seed = entry.number("seed", int, 0)
    if not 0 <= seed < 2**63:
        raise entry.error("seed", f"{seed} is not between 0 and 2**63.")
    settings = _plain(entry, "settings")
    return EditRequest(
        id=name,
        clip=_clip(entry, folder),
        source_prompt=_one_line(entry.text("source_prompt")),
        target_prompt=_one_line(entry.text("target_prompt")),
        edited_words=entry.words("edited_words"),
        target_words=entry.words("target_words"),
        category=entry.text("category", ""),
        seed=seed,
        settings=settings,
    )


def _plain(entry: Entry, name: str) -> dict[str, Any]:
    """A mapping of what JSON knows, which comes back from there unchanged."""
    stated = entry.mapping(name)
    try:
        plain = json.loads(json.dumps(stated, allow_nan=False)) == stated
    except (TypeError, ValueError, RecursionError):
        plain = False
    if not plain:
        raise entry.error(name, f"{quoted(stated)} must be texts, numbers, lists or mappings under names.")
    return stated


def _one_line(prompt: str) -> str:
    """Lines of a prompt become one; spaces within a line are the prompt's own."""
    return " ".join(prompt.split()) if "\n" in prompt else prompt


def _clip(entry: Entry, folder: Path | str | None) -> ClipSpec:
    """A path, or a mapping with the fields of ClipSpec."""
    stated = entry.fields.get("clip")
    if isinstance(stated, str):
        stated = {"path": stated}
    if not isinstance(stated, dict):
        raise entry.error("clip", "missing; write a path, or a mapping with path, start, frames, … .")
    clip = entry.nested("clip", stated)
    clip.refuse_unknown(_CLIP_FIELDS)
    path = clip.text("path")
    fit, audio = clip.text("fit", "crop"), clip.text("audio", "keep")
    if fit not in ("crop", "stretch"):
        raise clip.error("fit", f"{quoted(fit)} is neither 'crop' nor 'stretch'.")
    if audio not in ("keep", "drop"):
        raise clip.error("audio", f"{quoted(audio)} is neither 'keep' nor 'drop'.")
    return ClipSpec(
        path=path if folder is None else resolve_inside(folder, path, clip.where("path")),
        start=clip.count_or_time("start", 0) or 0,
        frames=clip.count_or_time("frames", None),
        stride=clip.number("stride", int, 1),
        fps=clip.number("fps", float, None),
        height=clip.number("height", int, None),
        width=clip.number("width", int, None),
        fit="crop" if fit == "crop" else "stretch",
        stream=clip.number("stream", int, None),
        audio="keep" if audio == "keep" else "drop",
    )


def _truth(entry: Entry, folder: Path | str) -> Mapping[str, Any]:
    """What is known of the right result: paths, recipes of a rendered world, runs of a mask, free words."""
    stated = _plain(entry, "truth")
    truth = entry.nested("truth", stated)
    for key in _TRUTH_MAPPINGS:
        if key in stated and not truth.mapping(key):
            raise truth.error(key, "is empty; write `name: value` lines, or leave it out.")
    runs = stated.get("mask_rle", [])
    if not isinstance(runs, list) or not all(type(number) is int and number >= 0 for number in runs):
        raise truth.error("mask_rle", f"{quoted(runs)} is not a list of whole numbers (starts and lengths).")
    paths = {key: resolve_inside(folder, truth.text(key), truth.where(key)) for key in TRUTH_PATHS if key in stated}
    return {**stated, **paths}


def check_texts(request: EditRequest) -> None:
    """See to it that what an edit says can be written into its records.

    A manifest is not refused for it, since its other edits can be made.

    Raises:
        UserError: a prompt, a word, the category or a setting holds half a character (a lone surrogate), or a control
            character other than a line's end and a tab.
    """
    texts = {
        "source_prompt": request.source_prompt,
        "target_prompt": request.target_prompt,
        "edited_words": " ".join(request.edited_words),
        "target_words": " ".join(request.target_words),
        "category": request.category,
        "settings": json.dumps(dict(request.settings), ensure_ascii=False),
    }
    for name, text in texts.items():
        for character in text:
            if unicodedata.category(character) in {"Cs", "Cc"} and character not in "\n\t":
                raise UserError(
                    f"edit {request.id}, field '{name}': it holds the character {quoted(character)}, which cannot be "
                    "written; take it out."
                )
