"""Hundreds of damaged clips of every kind: one sentence or a clip, no hang, no stack trace, no silent loss."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.clips.damaged_reading import PATIENCE
from tests.clips.matrix import CLIPS, MatrixClip
from tests.fuzzing.mutations import mutated_bytes

SEED, OF_EACH, PROCESSES = 0, 12, 2
ATTACKED = (
    *(
        "h264.mp4",
        "hevc.mp4",
        "mpeg2.mp4",
        "mpeg4.mp4",
        "av1.mp4",
        "fragmented.mp4",
        "trimmed-both.mov",
        "mirrored.mp4",
    ),
    *("varying.mp4", "wide.mp4", "interlaced-tff.mp4", "hlg-2020.mp4", "sound.mp4", "prores.mov", "mpeg4.3gp"),
    *("h264-open.mkv", "raw.mkv", "ffv1.mkv", "vp8.webm", "vp9.webm", "alt-ref.webm", "piped.webm", "varying.webm"),
    *("mpeg4-b.avi", "packed.avi", "dropped.avi", "mjpeg.avi", "ffv1.avi", "middle.avi", "h264.ts", "middle.ts"),
    *("angles.ts", "mpeg2.m2ts", "h264.flv", "wmv2.wmv", "vp8.ogv", "h264.264", "mpeg2.mpg", "mpeg2.mxf"),
    *("grey.gif", "colour.webp", "colour.apng"),
)
SAYS_SO = (
    r"does not say how many frames|left out|leaves out|show nothing|drops"  # that there may be, or are, more frames
)


def damaged(random: Random, content: bytes, other: bytes) -> bytes:
    """A file with bytes flipped, or a large part of it cut off, gone, empty, doubled, or from elsewhere."""
    start, end = sorted(random.choices(range(len(content)), k=2))
    kinds = (
        content[:start],
        content[:start] + content[end:],
        content[:start] + bytes(end - start) + content[end:],
        content[:end] + content[start:],
        content[len(content) // 2 :] + content[: len(content) // 2],
        other[: random.choice((64, 512, len(other) // 2))] + content[start:],
        *(mutated_bytes(random, content) for _ in range(4)),
    )
    return random.choice(kinds)


def outcomes(paths: Sequence[Path], patience: float = PATIENCE) -> list[dict[str, Any]]:
    """What came of each file, read in a process of its own; one that dies is followed by another for the rest."""
    found: list[dict[str, Any]] = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.clips.damaged_reading", str(patience)]
    while len(found) < len(paths):
        names = "\n".join(map(str, paths[len(found) :]))
        ended = subprocess.run(
            command,
            input=names,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        noise: list[str] = []
        for line in ended.stdout.splitlines():
            if not line.startswith('{"'):
                noise.append(line)
                continue
            found.append({"noise": noise} if noise else json.loads(line))
            noise = []
        if len(found) < len(paths):
            found.append({"died": ended.returncode, "noise": noise})
    return found


def complaint(path: Path, clip: MatrixClip, found: dict[str, Any]) -> str | None:
    """What is wrong with an outcome."""
    if "error" in found:
        said = found["error"]
        return None if str(path) in said and len(said.splitlines()) == 1 else f"no sentence that names it: {said}"
    if "frames" not in found:
        return str(found)
    if found["frames"] != found["announced"]:
        return f"{found['announced']} frames announced, {found['frames']} read"
    if found["frames"] < len(clip.shows) and not re.search(SAYS_SO, " ".join(found["notes"])):
        return f"{found['frames']} frames of {len(clip.shows)}, and nothing said but {found['notes']}"
    return None


def attack(folder: Path, seed: int) -> list[tuple[Path, MatrixClip]]:
    """Damaged files, each with the clip that it was."""
    contents = {}
    for name in ATTACKED:
        CLIPS[name].make(folder / name)
        contents[name] = (folder / name).read_bytes()
    made = []
    for name, content in contents.items():
        for index in range(OF_EACH):
            random = Random(f"{seed} {name} {index}")
            other = contents[random.choice([other for other in ATTACKED if other != name])]
            path = folder / f"{index}-{name}"
            path.write_bytes(damaged(random, content, other))
            made.append((path, CLIPS[name]))
    return made


@pytest.mark.slow
def test_no_damage_is_a_hang_a_stack_trace_or_a_silent_loss(tmp_path):
    attacked = attack(tmp_path, SEED)
    assert len(attacked) >= 300
    shares = [attacked[first::PROCESSES] for first in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        found = list(pool.map(lambda share: outcomes([path for path, _ in share]), shares))
    wrong = [
        f"{path.name}: {said}"
        for share, of_share in zip(shares, found, strict=True)
        for (path, clip), one in zip(share, of_share, strict=True)
        if (said := complaint(path, clip, one))
    ]
    assert not wrong, "\n".join(wrong)


def test_what_none_may_do_is_seen():
    clip, path = CLIPS["h264.mp4"], Path("a.mp4")
    sound = {"announced": 20, "frames": 20, "notes": []}
    fewer = {"announced": 19, "frames": 19}
    assert complaint(path, clip, sound) is None
    assert complaint(path, clip, {"error": "a.mp4 is damaged; copy it again."}) is None
    assert complaint(path, clip, {**fewer, "notes": ["The file's edit list leaves out 1 of 20 frames."]}) is None
    for wrong in (
        *(
            {"trace": "Traceback"},
            {"died": -11},
            {"noise": ["warning"]},
            {"error": "it is damaged"},
            {"error": "a.mp4\nis damaged"},
        ),
        *({**sound, "announced": 21}, {**fewer, "notes": ["Decoded by decord."]}),
    ):
        assert complaint(path, clip, wrong)


@pytest.mark.slow
def test_a_reader_that_takes_too_long_is_ended_and_noticed(tmp_path):
    CLIPS["one.mp4"].make(path := tmp_path / "one.mp4")
    found = outcomes([path, path], patience=1e-6)
    assert [one["died"] for one in found] == [-signal.SIGALRM] * 2
    assert outcomes([path, tmp_path / "missing.mp4", path])[2]["frames"] == 1
