"""CLIP's tokenizer for files that hold none, made from the merges that open_clip ships."""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fatezero.errors import UserError

MERGES = "bpe_simple_vocab_16e6.txt.gz"
WORDS = 49408  # of CLIP's vocabulary, the two marks included
START, END = "<|startoftext|>", "<|endoftext|>"


@cache
def tokenizer_files(padding: str) -> dict[str, str]:
    """The texts of a CLIPTokenizer's files by name.

    Args:
        padding: the token behind short prompts: END in Stable Diffusion 1.x and SDXL's first encoder, "!" in 2.x and
            SDXL's second.

    Raises:
        UserError: if open_clip does not bring CLIP's merges.
    """
    letters = _letters()
    merges = _merges(WORDS - 2 * len(letters) - 2)
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair.split()) for pair in merges),
        START,
        END,
    ]
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": padding}
    settings = {**marks, "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
    return {
        "vocab.json": json.dumps({word: index for index, word in enumerate(words)}, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "special_tokens_map.json": json.dumps(marks),
        "tokenizer_config.json": json.dumps({**settings, "tokenizer_class": "CLIPTokenizer"}),
    }


def _letters() -> list[str]:
    """A printable character for each of the 256 bytes, those that are printable themselves first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


def _merges(count: int) -> list[str]:
    found = find_spec("open_clip")
    folders = (found.submodule_search_locations if found else None) or []
    for folder in folders:
        path = Path(folder) / MERGES
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                lines = file.read().split("\n")
            return lines[1 : 1 + count]  # behind a line that names the version
    raise UserError(f"open_clip brings no {MERGES}, which holds CLIP's vocabulary: install open-clip-torch again.")
