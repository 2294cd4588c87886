"""Object stores, through fsspec: inputs are copied here once, results are copied there when they are whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from fatezero.data.files import home_folder, open_local, parse_json
from fatezero.data.layout import EVALUATION, EXPERIMENT, RECORD, RESULTS, failure_file, lock_file
from fatezero.data.object_store import READING, WRITING, ObjectStore, store_errors_told, without_credentials
from fatezero.errors import UserError
from fatezero.system.locking import locked
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted

MAX_COPY = 64 * 1024**3  # bytes of one input
MAX_FILES = 100_000  # of one input


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


def local_copy(url: str, limit: int = MAX_COPY) -> Path:
    """A copy of a remote file or folder on this machine, made once for each version of it.

    Raises:
        UserError: nothing is there, it has more than `limit` bytes or comes in part, or the store cannot be reached.
    """
    with store_errors_told(url, *READING):
        store = ObjectStore(url)
        files = store.files()
        if not files:
            raise UserError(f"{store.shown}: no such file or folder in the store; check the path.")
        total = sum(size or 0 for size in files.values())
        if len(files) > MAX_FILES or total > limit:
            raise UserError(
                f"{store.shown} has {len(files)} files of {total} bytes, and {MAX_FILES} files of {limit} bytes are "
                "copied at most: copy what you need of it here yourself."
            )
        version = blake2b(f"{url} {store.versions(files)}".encode(errors="surrogatepass"), digest_size=16).hexdigest()
        copy = copies_folder() / version / store.name
        if not copy.exists():
            with replacing(copy) as partial:
                left = limit
                for name, size in files.items():
                    left -= store.fetch(name, partial / name, size, left)
    return copy


def copies_folder() -> Path:
    """Where copies and the state of remote runs lie."""
    return home_folder() / "remote"


class RemoteRun:
    """A run folder in an object store, worked on in a folder of this machine, its mirror. The store is what counts.

    The state of its results comes here before the work; each result goes there when it is whole, its record last, so
    that a half-copied one never counts.

    Attributes:
        url: the run's address.
        shown: the same for people: without credentials.
        folder: the mirror.
    """

    def __init__(self, url: str) -> None:
        """Take the run's address; nothing is asked of the store yet."""
        scheme, _, path = url.partition("://")
        self.url = f"{scheme}://{path.rstrip('/')}"
        self.shown = without_credentials(self.url)
        self.folder = copies_folder() / blake2b(self.url.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def fetch_state(self) -> None:
        """Make the mirror say what the store holds: records, plans, failures and tables; frames stay where they are.

        Raises:
            UserError: the store cannot be read, or the mirror not be written.
        """
        self.check_results()
        with store_errors_told(self.url, *READING):
            store = ObjectStore(self.url)
            contents = store.read({name: size for name, size in store.sizes().items() if _is_state(name)})
            for name in filter(_is_state, _files_in(self.folder, "")):
                if name not in contents:
                    (self.folder / name).unlink(missing_ok=True)
            for name, content in contents.items():
                if _content(self.folder / name) != content:
                    _write(self.folder / name, content)

    def check_results(self) -> None:
        """Take results away here that the store does not hold whole, and bring the records of those that it holds.

        One that another process is at work on is waited for.

        Raises:
            UserError: the store cannot be read, or the mirror not be written.
        """
        with store_errors_told(self.url, *READING):
            store = ObjectStore(self.url)
            there = store.sizes()
            records = store.read({name: size for name, size in there.items() if _is_record(name)})
            for record in sorted({*records, *filter(_is_record, _files_in(self.folder, ""))}):
                result = record.removesuffix(f"/{RECORD}")
                if _content(self.folder / record) != self._counting(result, there, records.get(record)):
                    with locked(lock_file(self.folder / result, None)):
                        self._follow(store, result)

    def publish(self, local: Path) -> None:
        """Copy a finished result, or a single file, from the run's folder here to the store.

        An older result there is replaced, and a failure taken away. What arrived is compared with what lies here.

        Raises:
            UserError: the store cannot be written, or holds something else afterwards.
        """
        with store_errors_told(self.url, *WRITING):
            store, name = ObjectStore(self.url), local.relative_to(self.folder).as_posix()
            if local.is_dir():
                self._publish_result(store, name)
            else:
                store.put_whole(local, name)

    def _follow(self, store: ObjectStore, result: str) -> None:
        """Have of a result here what the store holds by now: its record, or nothing."""
        record, there = f"{result}/{RECORD}", store.sizes(result)
        found = store.read({record: there[record]})[record] if record in there else None
        counting, folder = self._counting(result, there, found), self.folder / result
        if _content(self.folder / record) == counting:
            return
        (self.folder / record).unlink(missing_ok=True)  # first: without it nothing counts
        if folder.exists():
            shutil.rmtree(folder)
        if counting is not None:
            _write(self.folder / record, counting)

    def _counting(self, result: str, there: Mapping[str, int], content: bytes | None) -> bytes | None:
        """The record of a result in the store, whose content is given; None unless all the result's files are there.

        As many as the record says, and, where this machine made them, the very ones that lie here.
        """
        if content is None:
            return None
        record, here = f"{result}/{RECORD}", _files_in(self.folder, result)
        files = {name: size for name, size in there.items() if name.startswith(f"{result}/") and name != record}
        same_record = here.pop(record, None) is not None and _content(self.folder / record) == content
        if same_record and here and here != files:
            return None
        try:
            about = parse_json(content.decode())
            stated = about.get("files", len(files)), about.get("bytes", sum(files.values()))
        except (ValueError, AttributeError):  # torn, or no mapping
            return None
        return content if stated == (len(files), sum(files.values())) else None

    def _publish_result(self, store: ObjectStore, result: str) -> None:
        """Copy a result: the older record goes first, the new one comes last."""
        record, here, older = f"{result}/{RECORD}", _files_in(self.folder, result), store.sizes(result)
        store.remove({record} & older.keys())
        for name in sorted(here.keys() - {record}):
            store.put(self.folder / name, name)
        store.remove(older.keys() - here.keys() - {record})
        store.put_whole(self.folder / record, record)
        there = store.sizes(result)
        if there != here:
            store.remove({record} & there.keys())
            name = min(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
            raise UserError(
                f"{self.shown} holds {there.get(name, 'no')} bytes as {quoted(name)} and was sent "
                f"{here.get(name, 'none')}: see that nothing else writes there, and run again."
            )
        failure = failure_file(Path(result)).as_posix()
        if store.holds(failure):
            store.remove({failure})


def _files_in(run: Path, folder: str) -> dict[str, int]:
    """Sizes by name in the run of all files in a folder of it; hidden ones are no part of a run."""
    found = {}
    for file in (run / folder).rglob("*"):
        name = file.relative_to(run)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = file.stat().st_size
    return found


def _is_record(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[2] == RECORD


def _is_state(name: str) -> bool:
    """Whether a file of a run says what the run holds: an experiment, a table, a plan or a failure."""
    folder, _, file = name.rpartition("/")
    return name in {EXPERIMENT, RESULTS} or (
        file.endswith(".json") and bool(folder) and "/" not in folder and folder != EVALUATION
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)
