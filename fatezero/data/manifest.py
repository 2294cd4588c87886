"""Reads manifests, the lists of edits: this project's own and those of the benchmarks in `foreign_manifests`."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fatezero.data.entry import Entry, Lines, load_json, load_json_lines, load_yaml, read_text
from fatezero.data.files import open_local, resolve_inside
from fatezero.data.foreign_manifests import recognition
from fatezero.data.foreign_manifests.davis_folders import is_davis, is_davis_list
from fatezero.data.layout import result_name
from fatezero.data.remote import is_remote, open_input
from fatezero.data.timecode import count_or_text
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec, EditRequest, FrameSelection

MAX_ID = 1000  # characters
_REQUEST_FIELDS = tuple(f.name for f in fields(EditRequest))
_CLIP_FIELDS = ("path", *(f.name for f in fields(FrameSelection)), "audio")
_SUFFIXES = (".yaml", ".yml", ".json", ".jsonl", ".csv")
_FITS: Mapping[str, Literal["crop", "right", "stretch"]] = {"crop": "crop", "right": "right", "stretch": "stretch"}
_TRUTH_MAPPINGS = ("recipe", "target")  # what the world of Picturebook is rendered from
_UNWRITABLE = {"Cs", "Cc"}  # halves of characters, control characters
TRUTH_PATHS = ("clip", "mask", "target_mask", "flow", "occlusion")


@dataclass(frozen=True)
class Manifest:
    """A list of edits.

    Attributes:
        path: the file or folder it came from.
        name: what it calls itself, otherwise the file's name.
        requests: the edits in the manifest's order.
        truth: by request id, what is known of the right result; its "clip", "mask", "target_mask", "flow"
            and "occlusion" are paths, as they are found from here.
        videos: by request id, where a folder of results has the edit, as the benchmark lays them out: the first of
            these paths that is there, with a suffix or without.
        extras: by request id, what a benchmark says beyond that, under its own names.
    """

    path: Path
    name: str
    requests: tuple[EditRequest, ...]
    truth: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    videos: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
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

    def of_categories(self, categories: Sequence[str]) -> Manifest:
        """The manifest with the edits of some categories alone; the whole where none is named.

        Raises:
            UserError: it has no edit of one of them.
        """
        there = sorted({request.category for request in self.requests})
        absent = [name for name in categories if name not in there]
        if absent:
            raise UserError(f"{self.path} has no edits of category {quoted(absent[0])}: it has {', '.join(there)}.")
        kept = tuple(request for request in self.requests if not categories or request.category in categories)
        return replace(self, requests=kept)


def read_manifest(path: str | Path, root: str | Path | None = None) -> Manifest:
    """Reads our own fields from yaml, json, jsonl or csv, or a benchmark's manifest.

    Args:
        path: the manifest; DAVIS's folder, or one of its lists; or a folder of videos named by their prompts.
        root: the folder that paths start from and may not leave; by default the manifest's own, or its benchmark's.

    Raises:
        UserError: naming file, line or entry, and field: an unknown, missing or ill-typed field; an id that
            is empty, too long, there twice (capitals count as small letters), or has control characters; a path that
            leads out of `root`.
    """
    local = open_input(path)
    folder = _folder(path, local, root)
    name, entries = _entries(local, folder)
    requests: dict[str, EditRequest] = {}
    taken: dict[str, str] = {}
    truth: dict[str, Mapping[str, Any]] = {}
    videos: dict[str, tuple[str, ...]] = {}
    extras: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        entry.refuse_unknown((*_REQUEST_FIELDS, "truth", "video"))
        request = _request(entry, folder)
        folder_name = result_name(request.id).casefold()  # some file systems know no capitals
        if earlier := taken.get(folder_name):
            by = "an earlier edit" if earlier == request.id else f"the earlier {quoted(earlier)}"
            raise entry.error("id", f"{quoted(request.id)} is taken by {by}; give each its own, also in small letters.")
        taken[folder_name] = request.id
        requests[request.id] = request
        if known := _truth(entry, folder):
            truth[request.id] = known
        if "video" in entry.fields:
            videos[request.id] = _videos(entry)
        if entry.extras:
            extras[request.id] = entry.extras
    if not requests:
        raise UserError(f"{local} lists no edits; add at least one.")
    return Manifest(local, name, tuple(requests.values()), truth, videos, extras)


def is_manifest(path: Path) -> bool:
    """Whether a file or folder is a manifest rather than a clip, by its suffix, or as DAVIS."""
    return is_davis(path) if path.is_dir() else path.suffix.lower() in _SUFFIXES or is_davis_list(path)


def _folder(path: str | Path, local: Path, root: str | Path | None) -> Path | str:
    """Where clip paths start: a folder here, or the address of one in a store."""
    if root is not None:
        return str(root).rstrip("/") if is_remote(root) else open_local(root)
    if is_remote(path):
        return str(path).rpartition("/")[0]
    return recognition.home_of(local)


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
        return path.name, recognition.of_folder(path)
    match path.suffix.lower():
        case ".csv":
            return path.stem, _csv_entries(path, folder)
        case ".jsonl":
            numbered = list(load_json_lines(path))
            lines: Lines = {(index,): line for index, (line, _) in enumerate(numbered)}
            return _entries_of(path, [values for _, values in numbered], lines, folder)
        case ".json":
            return _entries_of(path, load_json(path), {}, folder)
        case ".yaml" | ".yml":
            return _entries_of(path, *load_yaml(path), folder)
    if (listed := recognition.of_list_file(path, folder)) is not None:
        return path.stem, listed
    raise UserError(
        f"{path} is no manifest; name a .yaml, .json, .jsonl or .csv file (save spreadsheets as CSV), DAVIS's folder "
        "or one of its lists, or a folder of videos that are named by their prompts."
    )


def _entries_of(path: Path, data: Any, lines: Lines, folder: Path | str) -> tuple[str, Iterable[Entry]]:
    """Tells yaml and json manifests apart by their keys."""
    foreign: Iterable[Entry] | None = None
    if isinstance(data, list):
        foreign = recognition.of_entries(path, data, lines, folder)
    elif isinstance(data, dict) and "edits" not in data:
        foreign = recognition.of_mapping(path, data, lines, folder)
    if foreign is not None:
        return path.stem, foreign
    if isinstance(data, list) or (isinstance(data, dict) and "edits" in data):
        return _own_entries(path, data, lines)
    raise UserError(
        f"{path} is no manifest known here: write `edits:` with a list of edits, or name one of FateZero "
        "(`dataset_config`, or entries with `target`), Tune-A-Video (`train_data`), V2VBench (`data`), PIE (with "
        "`editing_prompt`), EditVerseBench (with `<text>`) or VBench (videos with their prompts)."
    )


def _own_entries(path: Path, data: Any, lines: Lines) -> tuple[str, Iterable[Entry]]:
    """A list of edits, or a mapping with `edits` and perhaps a `name`."""
    if isinstance(data, list):
        return path.stem, [Entry.at(path, values, lines, (index,)) for index, values in enumerate(data)]
    head = Entry(path, "line 1", data, {key: lines[key,] for key in data if (key,) in lines})
    head.refuse_unknown(("name", "edits"))
    edits = enumerate(head.items("edits"))
    return head.text("name", path.stem), [Entry.at(path, values, lines, ("edits", index)) for index, values in edits]


def _csv_entries(path: Path, folder: Path | str) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        columns = Counter(rows.fieldnames or ())
        twice = next((name for name, count in columns.items() if count > 1 and name), None)  # spreadsheets leave empty
        if twice is not None:
            raise UserError(f"{path}, line 1: the column {quoted(twice)} stands there twice; keep one.")
        if len(columns) == 1 and (parted := next((mark for mark in ";\t" if mark in next(iter(columns))), "")):
            raise UserError(f"{path}, line 1: its columns are parted by {parted!r}; save it with commas.")
        foreign = recognition.of_table(path, columns, _numbered(path, rows), folder)
        yield from foreign if foreign is not None else (_csv_entry(path, *row) for row in _numbered(path, rows))
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
    """Words are parted by spaces, fields of the clip have their own columns, an empty cell is the default.

    A table without a column for clips is one of edits without sources.
    """
    cells: dict[str, Any] = {column: cell.strip() for column, cell in row.items() if cell.strip()}
    if "clip" not in row:
        cells["clip"] = None
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
    if cells.get("clip") is not None:
        clip = {name: cells.pop(name) for name in _CLIP_FIELDS if name in cells}
        cells["clip"] = {"path": cells["clip"], **clip}
    return entry


def _request(entry: Entry, folder: Path | str | None) -> EditRequest:
    clip, name = _clip(entry, folder), entry.text("id")
    if not name.strip() or len(name) > MAX_ID or any(unicodedata.category(letter) in _UNWRITABLE for letter in name):
        raise entry.error(
            "id",
            f"{quoted(name)} is empty, longer than {MAX_ID} characters, or holds control characters; give another.",
        )
    seed = entry.number("seed", int, 0)
    if not 0 <= seed < 2**63:
        raise entry.error("seed", f"{seed} is not between 0 and 2**63.")
    settings = _plain(entry, "settings")
    return EditRequest(
        id=name,
        clip=clip,
        source_prompt=_one_line(entry.text("source_prompt", None if clip.path else "")),
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
    """A path, or a mapping with the fields of ClipSpec; null where an edit has no source."""
    stated = entry.fields.get("clip", "")
    if stated is None:
        return ClipSpec(path="")
    if isinstance(stated, str) and stated:
        stated = {"path": stated}
    if not isinstance(stated, dict):
        raise entry.error(
            "clip", "missing; write a path, a mapping with path, start, frames, …, or null where there is no source."
        )
    clip = entry.nested("clip", stated)
    clip.refuse_unknown(_CLIP_FIELDS)
    path = clip.text("path")
    fit, audio = clip.text("fit", "crop"), clip.text("audio", "keep")
    if fit not in _FITS:
        raise clip.error("fit", f"{quoted(fit)} is none of {', '.join(_FITS)}.")
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
        fit=_FITS[fit],
        stream=clip.number("stream", int, None),
        audio="keep" if audio == "keep" else "drop",
    )


def _videos(entry: Entry) -> tuple[str, ...]:
    """Where a folder of results may have an edit: paths inside it, or from elsewhere that must lead there."""
    stated = entry.fields["video"]
    paths = tuple(stated) if isinstance(stated, list) and stated else (stated,)
    for path in paths:
        inside = isinstance(path, str) and PurePosixPath(path).parts and not path.startswith("~") and "\0" not in path
        if not inside or ".." in PurePosixPath(path).parts:
            raise entry.error("video", f"{quoted(path)} is no path inside the folder of results; write clips/cow.mp4.")
    return paths


def _truth(entry: Entry, folder: Path | str) -> Mapping[str, Any]:
    """What is known of the right result: paths, recipes of a rendered world, runs of a mask, free words."""
    stated = _plain(entry, "truth")
    truth = entry.nested("truth", stated)
    for key in _TRUTH_MAPPINGS:
        if key in stated and not truth.mapping(key):
            raise truth.error(key, "is empty; write `name: value` lines, or leave it out.")
    beside = next((key for key in (*TRUTH_PATHS, "mask_rle") if key in stated), "")
    if beside and entry.fields.get("clip") is None:
        raise truth.error(beside, "belongs to the frames of a clip, and none is stated; add clip.")
    runs = stated.get("mask_rle", [])
    if not isinstance(runs, list) or not all(type(number) is int and number >= 0 for number in runs):
        raise truth.error("mask_rle", f"{quoted(runs)} is not a list of whole numbers (starts and lengths).")
    if "mask_rle" in stated and "mask" in stated:
        raise truth.error("mask_rle", "stands beside mask, and a truth has one; leave one of them out.")
    objects = stated.get("objects", [])
    if not isinstance(objects, list) or not all(type(number) is int and number > 0 for number in objects):
        raise truth.error("objects", f"{quoted(objects)} is not a list of the mask's objects; write [1, 3].")
    if objects and "mask" not in stated:
        raise truth.error("objects", "are those of a mask, and none is stated; add mask.")
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
            if unicodedata.category(character) in _UNWRITABLE and character not in "\n\t":
                raise UserError(
                    f"edit {request.id}, field '{name}': it holds the character {quoted(character)}, which cannot be "
                    "written; take it out."
                )
