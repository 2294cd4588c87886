"""Object stores, through fsspec: inputs are copied here once, results are copied there when they are whole."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from fatezero.data.files import open_local, replacing
from fatezero.data.layout import RECORD
from fatezero.errors import UserError


def is_remote(path: str | Path) -> bool:
    """Whether a path names something in an object store, such as s3://bucket/clip.mp4."""
    return "://" in str(path)


def open_input(path: str | Path) -> Path:
    """The existing, readable file or folder that a path or address names, copied here if it is remote.

    The one place where inputs become local paths.

    Raises:
        UserError: nothing is there, or it may not be read.
    """
    return local_copy(str(path)) if is_remote(path) else open_local(path)


def local_copy(url: str) -> Path:
    """A copy of a remote file or folder on this machine, made once for each version of it.

    Raises:
        UserError: nothing is there, or the store cannot be reached.
    """
    store, path = _open(url)
    try:
        if not store.exists(path):
            raise UserError(f"{url}: no such file or folder in the store; check the path.")
        names = sorted(store.find(path)) if store.isdir(path) else [path]
        stamp = blake2b(" ".join([url, *(str(store.ukey(name)) for name in names)]).encode(), digest_size=16)
        copy = copies_folder() / stamp.hexdigest() / PurePosixPath(path).name
        if not copy.exists():
            with replacing(copy) as partial:
                for name in names:
                    target = partial / PurePosixPath(name).relative_to(path) if store.isdir(path) else partial
                    target.parent.mkdir(parents=True, exist_ok=True)
                    store.get_file(name, str(target))
    except OSError as error:
        raise UserError(f"{url} cannot be read ({error}); check the path and your credentials.") from error
    return copy


def copies_folder() -> Path:
    """Where copies and the state of remote runs lie: $FATEZERO_HOME, by default ~/.cache/fatezero."""
    return Path(os.environ.get("FATEZERO_HOME", Path.home() / ".cache" / "fatezero")) / "remote"


class RemoteRun:
    """A run folder in an object store, worked on in a folder of this machine.

    The state of its results comes here before the work; each result goes there when it is whole, its `meta.json`
    last, so that a half-copied one never counts.
    """

    def __init__(self, url: str) -> None:
        """Take the run's address.

        Raises:
            UserError: the store is not known or cannot be reached.
        """
        self.url = url.rstrip("/")
        self.folder = copies_folder() / blake2b(self.url.encode(), digest_size=16).hexdigest()

    def fetch_state(self) -> None:
        """Bring records of what is there, which say what is done; results stay where they are.

        Raises:
            UserError: the store cannot be read.
        """
        store, root = _open(self.url)
        try:
            for name in store.find(root) if store.exists(root) else ():
                if name.endswith(".json"):
                    target = self.folder / PurePosixPath(name).relative_to(PurePosixPath(root))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    store.get_file(name, str(target))
        except OSError as error:
            raise UserError(f"{self.url} cannot be read ({error}); check the path and your credentials.") from error

    def publish(self, local: Path) -> None:
        """Copy a finished result, or a single file, from the run's folder here to the store.

        Raises:
            UserError: the store cannot be written.
        """
        store, root = _open(self.url)
        files = sorted(file for file in local.rglob("*") if file.is_file()) if local.is_dir() else [local]
        try:
            for file in sorted(files, key=lambda file: file.name == RECORD):
                target = f"{root.rstrip('/')}/{file.relative_to(self.folder).as_posix()}"
                store.makedirs(target.rpartition("/")[0], exist_ok=True)
                store.put_file(str(file), target)
        except OSError as error:
            raise UserError(f"{self.url} cannot be written ({error}); it goes on from there when it can.") from error


def _open(url: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{url}: this store cannot be opened ({error}).") from error
