"""What hostile or broken inputs look like: bytes, trees of values, files that are no files, bombs, payloads."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

SECRET = "the-secret-that-nobody-may-show"  # content of a file outside of every case's folder
ESCAPES = ("\x1b]0;owned\x07", "\x1b[2J\x1b[1;31m", "\u202eevil\u202c", "\x9b31m", "\r\x00", "\u2028", "\x08" * 9)
PATHS = (
    *(
        "../secret/canary.txt",
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
    ),
    *(
        "http://127.0.0.1:9/x",
        "https://user:hunter2@127.0.0.1:9/x.mp4",
        "s3://nowhere/x",
        "file:///dev/zero",
        "|id",
        "~",
    ),
    *("a\0b", ".", "..", "", "/", "C:\\x", "con", "-", "--redo", "x" * 300, "plan.json", "index.html", "$(id)"),
)
NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, 3e6, 1e-320, float("nan"), float("inf"), -float("inf"), 0.5)
TEXTS = (
    "\ud800",
    "é",
    "\u0130",
    "x" * 50_000,
    "{clip}",
    "null",
    "!!python/object/apply:os.system [id]",
    *ESCAPES,
    *PATHS,
)
DEEP = "[" * 5000 + "1" + "]" * 5000  # deeper than any reader's stack
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": ""}, [None], {"a": {"a": {}}})


def odd_value(random: Random) -> Any:
    """A value that hardly anyone expects."""
    kind = random.randrange(5)
    if kind == 0:
        return random.choice(NUMBERS)
    if kind == 1:
        return random.choice(OTHERS)
    if kind == 2:
        return nested(random.choice((60, 150)))
    return odd_text(random)


def odd_text(random: Random) -> str:
    """A text that hardly anyone expects."""
    return random.choice(TEXTS)


def nested(depth: int) -> Any:
    """Lists within each other."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def mutated_tree(random: Random, tree: Any) -> Any:
    """A tree of plain values with one to three nodes changed, left out, doubled, renamed or swapped."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return odd_value(random)
        holder, key = random.choice(places)
        _change(random, holder, key, places)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _change(random: Random, holder: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    kind = random.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[odd_text(random)] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.extend([holder[key]] * random.choice((1, 1000)))
    elif kind == 3:
        other, place = random.choice(places)
        holder[key] = copy.deepcopy(other[place]) if place in range(len(other)) or place in other else None
    elif kind == 4 and isinstance(holder[key], int | float):
        holder[key] = random.choice((str(holder[key]), -holder[key], holder[key] * 10**9, random.choice(NUMBERS)))
    elif kind == 5 and isinstance(holder[key], str):
        holder[key] = random.choice(
            (holder[key] + odd_text(random), odd_text(random), [holder[key]], list(holder[key]))
        )
    else:
        holder[key] = odd_value(random)


def written_tree(random: Random, tree: Any, kind: str) -> bytes:
    """A tree as JSON or YAML, now and then with keys that stand twice, aliases by the million, or harmed bytes."""
    if kind == "yaml" and random.random() < 0.05:
        return yaml_bomb(random)
    if random.random() < 0.02:
        return (f'{{"edits": {DEEP}}}' if random.random() < 0.5 else DEEP).encode()
    text = yaml.safe_dump(tree, allow_unicode=random.random() < 0.5) if kind == "yaml" else _json(random, tree)
    content = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(random, content) if random.random() < 0.2 else content


def _json(random: Random, tree: Any) -> str:
    text = json.dumps(tree, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + "," + text[1:-1] + "}"
    return text


def yaml_bomb(random: Random) -> bytes:
    """A kilobyte that stands for 9 ** 12 values, wherever a manifest or a configuration may hold some."""
    parts = ["&a0 [x,x,x,x,x,x,x,x,x]"] + [f"&a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    name = random.choice(("name", "edits", "steps", "data", "swan", "fusion"))
    lines = [f"{name}:", *(f"- {part}" for part in parts), *([] if name == "edits" else ["edits: []"])]
    return "\n".join(lines).encode()


def mutated_bytes(random: Random, content: bytes) -> bytes:
    """Bytes with bits flipped, cut off, taken out, doubled, moved or written over."""
    data = bytearray(content) or bytearray(b"\0")
    for _ in range(random.choice((1, 1, 2, 8))):
        at, length = random.randrange(len(data) or 1), random.choice((1, 2, 4, 16, 200))
        kind = random.randrange(7)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length] * random.choice((1, 50))
        elif kind == 3:
            start = random.randrange(len(data) or 1)
            data[at:at] = data[start : start + length]
        elif kind == 4:
            data[at : at + length] = random.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length
        elif kind == 5:
            data[at:at] = odd_text(random).encode("utf-8", "surrogatepass")
        elif data:
            data[at % len(data)] ^= 1 << random.randrange(8)
    return bytes(data)


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def pickled_payload(random: Random, marker: Path) -> bytes:
    """A pickle, or a torch archive with one inside, that makes a file where it is believed."""
    payload = random.choice((Payload(os.system, f"touch '{marker}'"), Payload(Path.touch, marker), Payload(eval, "1")))
    content = pickle.dumps({"state_dict": payload}, protocol=random.choice((0, 2, 4)))
    if random.random() < 0.5:
        return content
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
    return archive.getvalue()


def evil_module(marker: Path) -> bytes:
    """Python that makes a file where it is imported."""
    return f"open({str(marker)!r}, 'w', encoding='utf-8').close()\nclass EvilPipe: pass\n".encode()


def foreign_picture(random: Random, marker: Path) -> bytes:
    """Something that an image library may hand to another program, or that is no picture."""
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({marker}) (w) file closefile showpage\n"
    return random.choice(
        (
            script.encode(),
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:9/x"/></svg>',
            b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
            b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1:9/x'\n",
            b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x\n",
            b"ffconcat version 1.0\nfile ../secret/canary.txt\n",
        )
    )


def picture_bomb(random: Random) -> bytes:
    """A few kilobytes that unfold to gigabytes: a PNG, or a GIF of many frames."""
    if random.random() < 0.5:
        side = random.choice((30_000, 60_000, 2**31 - 1))
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 4_000_000, 9)), (b"IEND", b""))
        made = (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(made)
    side, count = random.choice(((9000, 50), (16, 300_000), (65535, 3)))
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00"
    palette = b"\x80\x00\x00" + b"\0\0\0\xff\xff\xff"
    return b"GIF89a" + struct.pack("<HH", side, side) + palette + frame * count + b"\x3b"


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def archive_bomb(random: Random) -> bytes:
    """An npz or zip whose one array unfolds to gigabytes, or says that it does."""
    archive = io.BytesIO()
    shape = random.choice(((2**40,), (4_000_000_000,), (10**9, 10**9)))
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8_000_000
        for name in ("forward.npy", "backward.npy", "arr_0.npy"):
            file.writestr(name, content)
    return archive.getvalue()


def safetensors_lie(random: Random) -> bytes:
    """A safetensors file whose header says what is not so."""
    about = random.choice(
        (
            {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
            {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
            {"x": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}},
            {"__metadata__": {"digest": 1}},
            {"__metadata__": {"prompt": ESCAPES[0], "digest": "x"}},
        )
    )
    header = json.dumps(about).encode()
    return struct.pack("<Q", random.choice((len(header), 2**62, 0))) + header + b"\0" * 4


def replaced_by_odd_file(random: Random, path: Path, marker: Path) -> None:
    """Put something that is no file of its kind in a file's place."""
    path.unlink()
    kind = random.randrange(7)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(random.choice(("/dev/zero", "/dev/tty", "/proc/self/environ", "/nowhere", path.name)))
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        with path.open("wb") as file:
            file.truncate(random.choice((0, 40 * 2**30)))
    elif kind == 4:
        path.symlink_to(marker.parent.parent / "secret" / "canary.txt")
    elif kind == 5:
        path.write_bytes(pickled_payload(random, marker))
    else:
        path.write_bytes(random.randbytes(random.choice((1, 100, 100_000))))


def mutated_file(random: Random, path: Path, marker: Path) -> None:
    """Change one file: its values where it holds some, else its bytes; now and then it is no file any more."""
    if random.random() < 0.15:
        replaced_by_odd_file(random, path, marker)
        return
    content = path.read_bytes()
    if path.suffix in {".json", ".jsonl", ".yaml"} and content and random.random() < 0.8:
        try:
            content = _mutated_values(random, content, path.suffix[1:])
        except (ValueError, yaml.YAMLError):  # a table of lines that hold no values
            content = mutated_bytes(random, content)
    elif path.suffix in {".safetensors", ".bin", ".ckpt"} and random.random() < 0.5:
        content = random.choice((safetensors_lie(random), pickled_payload(random, marker), archive_bomb(random)))
    elif path.suffix == ".png" and random.random() < 0.4:
        content = random.choice((foreign_picture(random, marker), picture_bomb(random)))
    else:
        content = mutated_bytes(random, content)
    path.unlink()
    path.write_bytes(content)


def _mutated_values(random: Random, content: bytes, kind: str) -> bytes:
    """The content of a file of values with a value changed; in one with a line for each, a line."""
    try:
        tree = yaml.safe_load(content) if kind == "yaml" else json.loads(content)
    except ValueError:
        lines = content.splitlines()
        at = random.randrange(len(lines))
        lines[at] = written_tree(random, mutated_tree(random, json.loads(lines[at])), "json")
        return b"\n".join(lines)
    return written_tree(random, mutated_tree(random, tree), kind)


def mutated_folder(random: Random, folder: Path, marker: Path) -> None:
    """Change one to three files anywhere in a folder; small files of values more often than large ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    values = [path for path in files if path.suffix in {".json", ".jsonl", ".yaml"}]
    count = random.choice((1, 1, 2, 3))
    chosen = {random.choice(values if values and random.random() < 0.5 else files) for _ in range(count)}
    for path in sorted(chosen):
        mutated_file(random, path, marker)
