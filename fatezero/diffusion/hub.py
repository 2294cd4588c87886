"""Names of the Hugging Face hub: what they mean, and their files on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fatezero.diffusion.weight_sets import variants_named
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

TIMEOUT = 20.0  # seconds that the hub may take to list a repository
HOSTS = ("huggingface.co", "hf.co")
_ID = r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)"
_FILE = re.compile(rf"{_ID}/(?P<file>[\w./ -]+\.[A-Za-z]+)")
_ADDRESS = re.compile(
    rf"https://(?:{'|'.join(map(re.escape, HOSTS))})/{_ID}"
    r"(?:/(?:blob|resolve)/(?P<revision>[\w.-]+)/(?P<file>[\w./ -]+)|/tree/(?P<branch>[\w.-]+))?/?(?:\?download=true)?"
)


@dataclass(frozen=True)
class HubName:
    """A repository of the hub, or a file in one.

    Attributes:
        repository: owner/name.
        file: path of the file in it; None for the whole.
        revision: branch, tag or commit; None for the newest.
    """

    repository: str
    file: str | None = None
    revision: str | None = None


def hub_name(name: str) -> HubName | None:
    """What a text names on the hub: an id, an id with a file behind it, or an address; None where it names nothing.

    Raises:
        UserError: for an address elsewhere.
    """
    if "://" in name:
        match = _ADDRESS.fullmatch(name)
        if match is None:
            raise UserError(
                f"{quoted(name)} is no address of a file or repository on https://{HOSTS[0]}: download it, and give "
                "the file."
            )
        return HubName(match["repository"], match["file"], match["revision"] or match["branch"])
    if re.fullmatch(_ID, name):
        return HubName(name)
    match = _FILE.fullmatch(name)
    return HubName(match["repository"], match["file"]) if match and ".." not in name.split("/") else None


def fetch_file(name: HubName, asked: str) -> Path:
    """A single file of the hub, on this machine.

    Args:
        name: of the file.
        asked: as the user wrote it.

    Raises:
        UserError: if the hub does not give it out.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  (slow to import)

    try:
        return Path(hf_hub_download(name.repository, str(name.file), revision=name.revision))
    except (OSError, ValueError) as error:
        raise _not_given(asked, "a file that the hub gives out") from error


def fetch_folder(name: HubName, asked: str, stems: Iterable[tuple[str, str]], variant: str | None) -> Path:
    """A repository's configurations and one set of weights for each network, on this machine.

    Args:
        name: of the repository.
        asked: as the user wrote it.
        stems: folder and beginning of the files' names for each network; "" is the repository's root.
        variant: of the weights; None takes the full ones, or the only ones there are.

    Raises:
        UserError: if the hub does not give it out.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        patterns = wanted_files(_listing(name), stems, variant)
        return Path(snapshot_download(name.repository, revision=name.revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise _not_given(asked, "a repository with safetensors weights that the hub gives out") from error


def _listing(name: HubName) -> list[str]:
    """Paths of a repository's files; of its copy here, where the hub cannot be reached."""
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415

    try:
        about = HfApi().model_info(name.repository, revision=name.revision, timeout=TIMEOUT)
        return [file.rfilename for file in about.siblings or ()]
    except Exception:  # of three libraries, by the kind of connection
        copy: Any = snapshot_download(name.repository, revision=name.revision, local_files_only=True)
        return [path.relative_to(copy).as_posix() for path in Path(copy).rglob("*") if path.is_file()]


def wanted_files(paths: Iterable[str], stems: Iterable[tuple[str, str]], variant: str | None) -> list[str]:
    """Of a repository's files, those that a checkpoint is loaded from.

    Args:
        paths: of all of them.
        stems: as in `fetch_folder`.
        variant: as in `fetch_folder`.
    """
    there = list(paths)
    wanted = [path for path in there if path.endswith((".json", ".txt", ".model")) and ".index." not in path]
    for part, stem in stems:
        folder = f"{part}/" if part else ""
        names = [path.removeprefix(folder) for path in there if path.startswith(folder)]
        found = variants_named(names, stem)
        chosen = variant if variant in found else None
        if chosen not in found and found:
            chosen = min(str(one) for one in found)
        dotted = f".{chosen}" if chosen else ""
        pattern = re.compile(
            rf"{re.escape(stem)}(?:{re.escape(dotted)}(?:-\d{{5}}-of-\d{{5}})?\.safetensors|-\d{{5}}-of-\d{{5}}"
            rf"{re.escape(dotted)}\.safetensors|\.safetensors\.index{re.escape(dotted)}\.json)"
        )
        wanted += [folder + one for one in names if pattern.fullmatch(one)]
    return sorted(set(wanted))


def _not_given(asked: str, what: str) -> UserError:
    return UserError(
        f"{asked} is neither a folder or file here nor {what}: check the spelling and the network, log in with `hf "
        "auth login` where its owner asks for it, or give a folder."
    )
