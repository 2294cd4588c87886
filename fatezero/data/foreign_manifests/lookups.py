"""Where a benchmark's files lie below a folder, for those whose lists leave that open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

VIDEO_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi")


def is_there(path: Path) -> bool:
    """Whether a file or folder lies there; a name that no disk takes does not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a null byte
        return False


def first_there(folder: Path, *candidates: str) -> str:
    """The first of some paths that lies in a folder, its suffix in small letters or capitals, else the first of all."""
    spelt = (path for candidate in candidates for path in _spelt(candidate))
    return next((path for path in spelt if is_there(folder / path)), candidates[0])


def _spelt(path: str) -> tuple[str, ...]:
    """A path as it stands, and with a video's suffix in small letters and in capitals."""
    stem = without_suffix(path)
    suffix = path.removeprefix(stem)
    return (path, stem + suffix.lower(), stem + suffix.upper()) if suffix else (path,)


def tail_there(folder: Path, path: str) -> str:
    """A path that was written from another working folder: its longest tail that lies in this one, else as it stands.

    So `./sample/bear` is found from the folder above `sample` and from `sample` itself.
    """
    names = [part for part in PurePosixPath(path).parts if part != "/"]
    if not names or ".." in names:
        return path
    found = first_there(folder, *("/".join(names[start:]) for start in range(len(names))))
    return found if is_there(folder / found) else path


def short_ids(videos: Sequence[str], *, last: bool) -> list[str]:
    """What edits are called by their videos: without suffix where that tells them apart, else as the videos.

    Args:
        videos: paths.
        last: by the last name of each path alone, where that tells them apart.
    """
    short = [without_suffix(PurePosixPath(video).name if last else video) for video in videos]
    taken = Counter(map(str.casefold, short))  # ids may not differ in capitals alone
    pairs = zip(short, videos, strict=True)
    return [name if taken[name.casefold()] == 1 else str(PurePosixPath(video)) for name, video in pairs]


def without_suffix(name: str) -> str:
    """A video's name before its suffix; dots of any other name are its own."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else name
