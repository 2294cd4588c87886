"""One file or folder in an object store, through fsspec: listed, read and written, its errors told in sentences."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fatezero.data.files import MAX_TEXT
from fatezero.errors import UserError, first_line
from fatezero.system.publishing import clear_leftovers, replacing
from fatezero.system.terminal import quoted

BLOCK = 1024**2


def without_credentials(text: str) -> str:
    """A text whose addresses show neither user nor password, nor what follows a question mark: often a signature."""
    return re.sub(r"(://[^\s?]*)\?[^\s'\")]*", r"\1?…", re.sub(r"://[^/\s]*@", "://", text))


@contextmanager
def store_errors_told(url: str, what: str, mend: str) -> Iterator[None]:
    """Whatever a store raises becomes a UserError with its address; the libraries of stores raise what they like."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = without_credentials(first_line(error))
        raise UserError(f"{without_credentials(url)} cannot be {what} ({reason}); {mend}.") from None


READING = ("read", "check the path and your credentials")
WRITING = ("written", "it goes on from there when it can")


class ObjectStore:
    """A file or folder in a store; its files are named relative to it.

    Attributes:
        shown: its address for people: without credentials.
        name: its own name in the store.
    """

    def __init__(self, url: str) -> None:
        """Find the store's library; nothing is asked of the store yet.

        Raises:
            UserError: no library serves such an address, or it names nothing.
        """
        self.shown = without_credentials(url)
        with store_errors_told(url, "opened", "write it as s3://bucket/folder, and install what serves such stores"):
            self._system, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self.name = PurePosixPath(self._root.partition("?")[0]).name
        if self.name in {"", ".", ".."} or "\0" in self._root:
            raise UserError(f"{self.shown} names no file or folder in a store; write it as s3://bucket/folder.")

    def files(self) -> dict[str, int | None]:
        """Sizes by name of all files; a single file's name is empty, and a size may be unknown.

        Raises:
            UserError: a name leads out of the folder, or names no regular file.
        """
        found: dict[str, int | None] = {}
        self._system.invalidate_cache()
        if self._system.exists(self._root) and not self._system.isdir(self._root):
            listed = {self._root: self._system.info(self._root)}
        else:
            listed = self._system.find(self._root, detail=True)
        for path, about in sorted(listed.items()):
            name = path[len(self._root) + 1 :]
            if name and not (path.startswith(f"{self._root}/") and all(map(_is_plain, name.split("/")))):
                raise UserError(f"{self.shown} holds {quoted(path)}, which leads out of it; take that away.")
            if about.get("type") != "file":
                raise UserError(f"{self.shown} holds {quoted(path)}, which is no regular file; take that away.")
            found[name] = about.get("size")
        return found

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Sizes by name of all files in a folder, asked of the store now; hidden ones are other programs' own."""
        root = self._path(folder)
        self._system.invalidate_cache()
        found = {}
        for path, about in self._system.find(root, detail=True).items():
            inner = path[len(root) + 1 :]
            parts = inner.split("/")
            if about.get("type") == "file" and all(_is_plain(part) and part[0] != "." for part in parts):
                found[f"{folder}/{inner}" if folder else inner] = int(about["size"])
        return found

    def versions(self, names: Iterable[str]) -> str:
        """Tells apart what lies there at different times."""
        return " ".join(f"{name} {self._system.ukey(self._path(name))}" for name in names)

    def fetch(self, name: str, target: Path, size: int | None, limit: int) -> int:
        """Copy a file here.

        Args:
            name: the file's.
            target: where it goes; folders are made.
            size: bytes that the store says it has; None where it does not.
            limit: bytes that it may have.

        Returns:
            Its bytes.

        Raises:
            UserError: it has more than the limit, or another number than the store says, or cannot be read.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        come = 0
        with target.open("wb") as file:
            for block in self._blocks(name):
                come += len(block)
                if come > limit:
                    raise UserError(f"{self.shown} has more than the {limit} bytes left to it; copy it here yourself.")
                file.write(block)
        if size is not None and come != size:
            raise UserError(f"{self.shown} came in part: {come} of {size} bytes of {quoted(name)}; run again.")
        return come

    def _blocks(self, name: str) -> Iterator[bytes]:
        """A file's content; errors are told here, as those of writing it are not the store's."""
        with store_errors_told(self.shown, *READING), self._system.open(self._path(name), "rb") as source:
            while block := source.read(BLOCK):
                yield block

    def read(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """What small files hold, by name; their sizes are those that the store says.

        Raises:
            UserError: one is too large.
        """
        for name, size in sizes.items():
            if size > MAX_TEXT:
                raise UserError(f"{self.shown}: {quoted(name)} has more than {MAX_TEXT} bytes; take it away.")
        return {name: self._system.cat_file(self._path(name)) for name in sizes}

    def put(self, local: Path, name: str) -> None:
        """Copy a file there."""
        path = self._path(name)
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(local), path)

    def put_whole(self, local: Path, name: str) -> None:
        """Copy a file that others may read at any time: object stores show a file when all of it is there."""
        if not isinstance(self._system, LocalFileSystem):
            self.put(local, name)
            return
        target = Path(self._path(name))
        clear_leftovers(target.parent)
        with replacing(target) as partial:
            shutil.copyfile(local, partial)

    def remove(self, names: Iterable[str]) -> None:
        """Take files away, one by one: `rm` would read a star in a name as a pattern."""
        for name in sorted(names):
            self._system.rm_file(self._path(name))

    def holds(self, name: str) -> bool:
        """Whether a file is there, asked of the store now."""
        self._system.invalidate_cache()
        return bool(self._system.exists(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _is_plain(part: str) -> bool:
    return part not in {"", ".", ".."} and not set(part) & {"\0", "\\"}
