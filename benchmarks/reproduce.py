"""Measure again everything that is published: `python benchmarks/reproduce.py [STUDY ...]`, in a clone of the project.

A study is a list of commands and the folder that holds its results (studies.yaml). When all its commands have ended,
that folder gets measured.json: the commit, the machine, the versions, the digests of the shipped models, and what each
command took. Stopped, it goes on at the command where it was, which itself keeps what it had finished; a study that was
measured by this code is not measured again, and runs that other code has made are not taken for its own. `--list` says
what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from fatezero import shipped
from fatezero.diffusion.checkpoint import checkpoint_digest
from fatezero.errors import UserError, first_line
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import complain, say

STUDIES = Path("experiments/studies.yaml")
CODE = (
    *("fatezero", "eval", "benchmarks", "datasets", "experiments/*.yaml", "pyproject.toml"),
    *(":(exclude)*.md", ":(exclude)fatezero/picturebook/weights/*.jpg"),  # READMEs, cards and their sheets
    ":(exclude)benchmarks/reproduce.py",  # it only runs what measures
)
RECORD = "measured.json"  # in a study's results
STARTED = Path("runs/reproduce")  # records of studies that have begun
PACKAGES = ("torch", "diffusers", "transformers", "lightning", "torchmetrics", "open_clip_torch", "numpy")


@dataclass(frozen=True)
class Study:
    """Commands that measure something, and where the numbers go."""

    name: str
    results: Path
    commands: tuple[str, ...]

    @property
    def runs(self) -> list[str]:
        """The run folders that its commands name."""
        return sorted(set(re.findall(r"\bruns/[\w-]+", " ".join(self.commands))))


@dataclass(frozen=True)
class Ran:
    """A command that has ended well, and the seconds that it took."""

    command: str
    seconds: float


def main() -> int:
    """Run the studies that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="STUDY", help="all by default")
    parser.add_argument("--list", action="store_true", help="say by what each study was measured, and measure nothing")
    parser.add_argument("--studies", type=Path, default=STUDIES, help=f"the list of studies (default {STUDIES})")
    options = parser.parse_args()
    try:
        studies = chosen(read_studies(options.studies), options.names)
        if options.list:
            say("\n".join(f"{study.name}: {told(study)}" for study in studies))
            return 0
        here = provenance()
        for study in studies:
            measure(study, here)
    except UserError as error:
        complain(error)
        return 1
    return 0


def read_studies(path: Path) -> list[Study]:
    """The studies of a list.

    Raises:
        UserError: it is not there, or no list of studies.
    """
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [
            Study(name, Path(study["results"]), tuple(map(str, study["commands"]))) for name, study in listed.items()
        ]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this in a clone of the project, in its first folder.") from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no list of studies ({first_line(error)}): each has `results` and `commands`."
        ) from None


def chosen(studies: Sequence[Study], names: Sequence[str]) -> list[Study]:
    """Those that are named, in the order of the list; all where none is.

    Raises:
        UserError: a name is no study's.
    """
    known = [study.name for study in studies]
    for name in names:
        if name not in known:
            raise UserError(f"there is no study {name}: there are {', '.join(known)}.")
    return [study for study in studies if not names or study.name in names]


def provenance() -> dict[str, Any]:
    """By what and on what is measured here.

    Raises:
        UserError: the code differs from its commit, which would then not say what measured.
    """
    changed = _git("status", "--porcelain", "--", *CODE).splitlines()
    if changed:
        raise UserError(f"numbers are measured by code that is committed: commit or undo {changed[0][3:]} first.")
    return {
        "commit": _git("log", "-1", "--format=%H", "--", *CODE).strip(),  # later ones changed nothing that measures
        "machine": {
            "processor": _processor(),
            "vector level": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "checkpoints": {
            folder.name: checkpoint_digest(folder)[:8]
            for folder in sorted(shipped.CHECKPOINT.parent.iterdir())
            if folder.is_dir()
        },
    }


def measure(study: Study, here: Mapping[str, Any]) -> None:
    """Run a study's commands that have not ended yet, and record what they took.

    Raises:
        UserError: a command fails, and those before it are not run again; or a run is there that other code has made.
    """
    if _read(study.results / RECORD).get("commit") == here["commit"]:
        say(f"{study.name}: measured already, by this commit")
        return
    started = STARTED / f"{study.name}.json"
    ran = list(_still_standing(study, here, _read(started)))
    _check_runs(study, here)
    _write(started, {**here, "runs": study.runs}, ran)
    for number, command in enumerate(study.commands[len(ran) :], len(ran) + 1):
        say(f"{study.name}, {number} of {len(study.commands)}: {command}")
        ran.append(_run(command))
        _write(started, {**here, "runs": study.runs}, ran)
    _write(study.results / RECORD, {**here, "finished": f"{datetime.now(UTC):%Y-%m-%d}"}, ran)
    say(f"{study.name}: measured, see {study.results}")


def told(study: Study) -> str:
    """By what a study was measured, in a line."""
    record = _read(study.results / RECORD)
    if not record:
        return "no record of how it was measured"
    minutes = sum(ran["seconds"] for ran in record["commands"]) / 60
    machine = record["machine"]
    return (
        f"commit {record['commit'][:8]}, {record['finished']}, {minutes:.0f} minutes of {machine['cores']} cores of "
        f"{machine['processor']}"
    )


def _still_standing(study: Study, here: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[Ran]:
    """What a record says of a study's first commands, if it was begun by this commit."""
    if record.get("commit") == here["commit"]:
        for command, ran in zip(study.commands, record["commands"], strict=False):
            if ran["command"] != command:
                return
            yield Ran(**ran)


def _check_runs(study: Study, here: Mapping[str, Any]) -> None:
    """Refuse runs that are there already, unless a study has begun them by this commit: their results would be kept."""
    begun = [record for record in map(_read, STARTED.glob("*.json")) if record["commit"] == here["commit"]]
    ours = {folder for record in begun for folder in record["runs"]}
    for folder in study.runs:
        if folder not in ours and Path(folder).exists():
            raise UserError(f"{folder} was not made by this commit, and what it holds would be kept: move it away.")


def _run(command: str) -> Ran:
    """Run a command of the list; `fatezero` and `python` are this environment's."""
    program, *words = shlex.split(command)
    own = {"fatezero": [sys.executable, "-m", "fatezero"], "python": [sys.executable]}
    start = time.monotonic()
    status = subprocess.run([*own.get(program, [program]), *words], check=False).returncode
    if status:
        raise UserError(f"`{command}` ended with status {status}; mend what it says and run the same again to go on.")
    return Ran(command, round(time.monotonic() - start, 1))


def _write(path: Path, record: dict[str, Any], ran: Sequence[Ran]) -> None:
    record["commands"] = [asdict(one) for one in ran]
    replace_text(path, json.dumps(record, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A record, empty where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git does not say which commit this is ({done.stderr.strip()}): run this in a clone.")
    return done.stdout


def _processor() -> str:
    """The processor's name, as Linux states it; elsewhere as Python does."""
    stated = Path("/proc/cpuinfo")
    lines = stated.read_text(encoding="utf-8").splitlines() if stated.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
