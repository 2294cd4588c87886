"""Paths that come from users: opening them, keeping them in their folder, replacing files whole."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path, PurePosixPath
from typing import Any

from fatezero.errors import UserError


def open_local(path: str | Path) -> Path:
    """The existing, readable file or folder that `path` names.

    Raises:
        UserError: nothing is there, or it may not be read.
    """
    local = Path(path)
    try:
        if local.is_dir():
            next(local.iterdir(), None)
        elif stat.S_ISREG(local.stat().st_mode):  # opening a pipe would wait for its writer
            local.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file or folder; check the path.") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied; make it readable for this user.") from None
    except (OSError, ValueError) as error:  # a null byte, a name too long, a failing disk
        raise UserError(f"{str(path)!r} cannot be opened ({error}); check the path.") from None
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
        raise UserError(f"{where}: {path!r} is not a path of a local file; name one inside {root}.")
    given = Path(path)
    escapes = ".." in PurePosixPath(path.replace("\\", "/")).parts
    if escapes or (given.is_absolute() and not (isinstance(root, Path) and given.is_relative_to(root.absolute()))):
        raise UserError(
            f"{where}: {path!r} leads out of {root}; move the file there, or give the folder that holds it as `root`."
        )
    return str(root / given) if isinstance(root, Path) else f"{root}/{given.as_posix()}"


def existing_parent(path: Path) -> Path:
    """The nearest folder above a path, or the path itself, that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def content_digest(path: Path) -> str:
    """Digest of a file, or of all files in a folder with their names; what is missing is said to be."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return " ".join(f"{file.name}:{content_digest(file)}" for file in files)
    try:
        about = path.stat()
        return _file_digest(path, about.st_mtime_ns, about.st_size)
    except OSError:
        return "missing"


@lru_cache(maxsize=4096)
def _file_digest(path: Path, modified: int, size: int) -> str:  # noqa: ARG001  (a changed file is read again)
    with path.open("rb") as file:
        return file_digest(file, "blake2b").hexdigest()


def json_digest(values: Any, bytes_: int = 16) -> str:
    """Digest of plain values, in hexadecimal digits; the order of keys does not matter.

    What JSON does not know, such as a date in YAML, counts as its text.
    """
    return blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=bytes_).hexdigest()


def replace_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or none (see `replacing`).

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place, whole, when the block ends without an exception.

    Works for files and for folders. A killed process leaves at most a hidden `.partial` beside the target,
    never half a target.

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.
    """
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if target.is_dir() and partial.is_dir():  # takes two moves: the old folder steps aside first
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            try:
                partial.replace(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old)
        else:
            partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}); free some space or choose another folder.") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # a folder that cannot be written has been named above
                partial.unlink(missing_ok=True)
