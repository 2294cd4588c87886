"""Files and folders that appear whole or not at all, whatever becomes of the process that writes them."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.locking import try_lock
from fatezero.system.stopping import stopping_later, stopping_now

LEFTOVERS = (".*.partial*", ".*.old", ".*.lock")  # what a killed process can leave beside its target
PARTIAL, LOCK, OLD = ".partial", ".lock", "old"


def replace_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or none (see `replacing`).

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside `path`; what is made there takes the place of `path`, whole.

    Works for files and for folders, which are on the disk before they take their name. The hidden folder has a random
    name and is locked, so that no writers meet, whatever their process numbers; that of a killed process is found by
    `clear_leftovers`.

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = not any(part.endswith(PARTIAL) for part in target.parts)  # no part of something larger
        if whole:
            _clear_once(target.parent)
        with hidden_folder(target.parent) as folder:
            partial = folder / target.name
            yield partial
            if whole:
                _make_durable(partial)
            with stopping_later():
                _take_place(partial, target, folder / OLD)
            _flush(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}); free some space or choose another folder.") from error


def _take_place(partial: Path, target: Path, aside: Path) -> None:
    """Rename; for a folder that takes two moves, as the old one steps aside first."""
    if not (target.is_dir() and partial.is_dir()):
        partial.replace(target)
        return
    aside.mkdir()
    old = aside / target.name
    target.rename(old)
    try:
        partial.replace(target)
    except BaseException:
        old.rename(target)
        raise


def clear_leftovers(folder: Path) -> None:
    """Take away what killed processes left in a folder; a folder that had stepped aside for a new one comes back.

    What a living process is at work on is locked, and stays.
    """
    for pattern in LEFTOVERS:
        for left in folder.glob(pattern):
            with suppress(OSError):  # gone meanwhile, or not ours to take away
                _clear(left)


@lru_cache(maxsize=1024)
def _clear_once(folder: Path) -> None:
    """Take leftovers away before this process first publishes in a folder."""
    clear_leftovers(folder)


def _clear(left: Path) -> None:
    if left.is_symlink() or not (left.is_dir() or left.is_file()):  # what a link stands for is somebody else's
        left.unlink()
        return
    lock = try_lock(left / LOCK if left.is_dir() else left)
    if lock is None:
        return
    if not left.is_dir():
        left.unlink()
        lock.close()
        return
    with lock:
        for old in (left / OLD).glob("*"):
            if not (left.parent / old.name).exists():
                old.rename(left.parent / old.name)
        shutil.rmtree(left)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, which goes at the end; those that killed processes have left go at the beginning."""
    parent = Path(tempfile.gettempdir()) / f"fatezero-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    clear_leftovers(parent)
    with hidden_folder(parent) as folder:
        (folder / "scratch").mkdir()
        yield folder / "scratch"


@contextmanager
def hidden_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder of this process's own, which goes at the end; see `clear_leftovers`."""
    with stopping_later():
        folder, lock = _new_folder(parent)
        with lock:
            try:
                with stopping_now():
                    yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _new_folder(parent: Path) -> tuple[Path, TextIOWrapper]:
    """A folder of a random name and its lock."""
    while True:
        folder = parent / f".{secrets.token_hex(8)}{PARTIAL}"
        folder.mkdir()
        with suppress(FileNotFoundError):  # taken for a leftover before it could be locked
            lock = try_lock(folder / LOCK)
            if lock is not None:
                return folder, lock


def _make_durable(path: Path) -> None:
    """Have a file, or a folder with all that it holds, on the disk: a rename alone can outlive what it names."""
    inner = sorted(path.rglob("*"), reverse=True) if path.is_dir() else []  # a folder after what it holds
    for part in (*inner, path):
        _flush(part)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot flush folders
            raise
    finally:
        os.close(handle)
