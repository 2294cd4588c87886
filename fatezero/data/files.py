"""Paths and files that come from users: opening them, keeping them in their folder, reading them within bounds."""

from __future__ import annotations

import json
import math
import os
import stat
import unicodedata
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path, PurePosixPath
from typing import Any

from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened


def open_local(path: str | Path) -> Path:
    """The existing, readable file or folder that `path` names.

    Raises:
        UserError: nothing is named, or there; it may not be read; it is neither (a pipe, a device, a socket); or its
            name is no plain text.
    """
    if path == "":  # which would be the working folder
        raise UserError("'' cannot be opened, since it names no file; write a path.")
    local = Path(path)
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in str(path)):  # records state it
        raise UserError(
            f"{quoted(str(path))} cannot be opened, since its name holds control characters or is no text in UTF-8; "
            "rename it."
        )
    try:
        if local.is_dir():
            next(local.iterdir(), None)
        elif stat.S_ISREG(local.stat().st_mode):  # opening a pipe would wait for its writer
            local.open("rb").close()
        else:
            raise UserError(f"{path} is neither a file nor a folder but a pipe, a device or a socket; name a file.")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file or folder; check the path.") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied; make it readable for this user.") from None
    except (OSError, ValueError) as error:  # a null byte, a name too long, a failing disk
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{quoted(str(path))} cannot be opened ({reason}); check the path.") from None
    return local


def resolve_inside(root: Path | str, path: str, where: str) -> str:
    """`path`, written relative to `root`, as a path from here; an absolute one must lie in `root` already.

    Links within `root` are followed: they are the choice of whoever owns it.

    Args:
        root: the folder that may not be left, or the address of one in a store.
        path: as a manifest states it.
        where: file, line and field, for the message.

    Raises:
        UserError: `path` is empty, a URL, or leads out of `root`.
    """
    if not path or "\0" in path or "://" in path:
        raise UserError(f"{where}: {quoted(path)} is not a path of a local file; name one inside {root}.")
    given = Path(path)
    escapes = ".." in PurePosixPath(path.replace("\\", "/")).parts
    if escapes or (given.is_absolute() and not (isinstance(root, Path) and given.is_relative_to(root.absolute()))):
        raise UserError(
            f"{where}: {quoted(path)} leads out of {root}; move the file there, or give the folder that holds it as "
            "`root`."
        )
    return str(root / given) if isinstance(root, Path) else f"{root}/{given.as_posix()}"


def home_folder() -> Path:
    """Where this project keeps files of its own: $FATEZERO_HOME, by default ~/.cache/fatezero."""
    return Path(os.environ.get("FATEZERO_HOME", Path.home() / ".cache" / "fatezero"))


def existing_parent(path: Path) -> Path:
    """The nearest folder above a path, or the path itself, that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


MAX_TEXT = 64 * 1024 * 1024  # bytes of a text file that is read as a whole
# Bytes of an image's file, some kinds of which are read as a whole: the largest frame with 64 bits a pixel.
MAX_IMAGE_FILE = 512 << 20
MAX_NESTING = 100  # lists and mappings within each other
MAX_DIGITS = 20  # of a whole number: those of 64 bits have as many, with a sign


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """A regular file's text in UTF-8, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, larger than `limit` bytes, or not UTF-8.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device could go on for ever
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content.decode("utf-8-sig")


def read_json(path: Path, *, infinite: bool = False) -> Any:
    """What a JSON file holds: plain values in which every number is one and no key stands twice.

    Args:
        path: its file.
        infinite: let it hold Infinity and -Infinity, as Python writes them.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file.
    """
    return parse_json(read_text(path), infinite=infinite)


def parse_json(text: str, *, halves: bool = False, infinite: bool = False) -> Any:
    r"""Plain values in which every number is one, no key stands twice, and nothing is nested too deeply.

    Args:
        text: JSON.
        halves: let texts hold half a character (a lone surrogate such as \\ud800), which no file can hold.
        infinite: let it hold Infinity and -Infinity, which are Python's and no JSON.

    Raises:
        ValueError: saying what it is instead.
    """

    def refuse(number: str) -> float:
        raise ValueError(f"{shortened(number, 40)} is no number")

    def constant(name: str) -> float:
        return float(name) if infinite and name != "NaN" else refuse(name)

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    def whole(number: str) -> float:
        return int(number) if len(number) <= MAX_DIGITS else refuse(number)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise ValueError(f"{quoted(key)} stands there twice; keep one")
            values[key] = value
        return values

    try:
        values = json.loads(
            text, object_pairs_hook=unique, parse_constant=constant, parse_float=finite, parse_int=whole
        )
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    _check_values(values, MAX_NESTING, halves=halves)
    return values


def _check_values(values: Any, left: int, *, halves: bool) -> None:
    """Refuse what is nested too deeply, and texts that UTF-8 cannot hold."""
    if left == 0:
        raise ValueError("its values are nested too deeply")
    if isinstance(values, str) and not halves:
        try:
            values.encode()
        except UnicodeEncodeError:
            raise ValueError("a text in it holds half a character") from None
    if isinstance(values, dict | list):
        for value in (*values, *values.values()) if isinstance(values, dict) else values:
            _check_values(value, left - 1, halves=halves)


MISSING, IRREGULAR = "missing", "no regular file"  # what stands in place of a digest


def content_digest(path: Path) -> str:
    """Digest of a file, or of all files in a folder with their names; what is missing is said to be."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return " ".join(f"{file.name}:{_frame_digest(file)}" for file in files)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return IRREGULAR
        return _file_digest(path, about.st_mtime_ns, about.st_size)
    except OSError:
        return MISSING


def _frame_digest(file: Path) -> str:
    """Of a file among a clip's frames; of one that no reader of images takes, what it is instead."""
    return IRREGULAR if file.stat().st_size > MAX_IMAGE_FILE else content_digest(file)


@lru_cache(maxsize=4096)
def _file_digest(path: Path, modified: int, size: int) -> str:  # noqa: ARG001  (a changed file is read again)
    with path.open("rb") as file:
        return file_digest(file, "blake2b").hexdigest()


def json_digest(values: Any, bytes_: int = 16) -> str:
    """Digest of plain values, in hexadecimal digits; the order of keys does not matter.

    What JSON does not know, such as a date in YAML, counts as its text.
    """
    return blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=bytes_).hexdigest()
