"""Kept inversions: found again, bounded, and never believed when damaged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from fatezero.cli import main
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.runs.inversion_cache import InversionCache, cache_key

CPU = torch.device("cpu")
EXPECTED = {"latents": ((10, 100), torch.float32)}


def get(cache: InversionCache, prompt: str, said: list[str] | None = None) -> Mapping[str, torch.Tensor] | None:
    return cache.get({"prompt": prompt}, CPU, EXPECTED, [].append if said is None else said.append)


def path_of(cache: InversionCache, key: str) -> Path:
    return cache.folder / key[:2] / f"{key}.safetensors"


def fill(cache: InversionCache, *names: str) -> list[str]:
    """Put 4 kB under each name, a second apart."""
    keys = [cache_key({"prompt": name}) for name in names]
    for age, (name, key) in enumerate(zip(names, keys, strict=True)):
        cache.put({"prompt": name}, {"latents": torch.full((10, 100), float(len(name)))})
        os.utime(path_of(cache, key), (1000 + age, 1000 + age))
    return keys


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    fill(cache, "a ball")
    found = get(cache, "a ball")
    assert found is not None
    assert torch.equal(found["latents"], torch.full((10, 100), 6.0))
    assert get(cache, "another") is None
    assert [entry.about["prompt"] for entry in cache.entries()] == ["a ball"]


def test_keys_tell_everything_apart() -> None:
    about = {"prompt": "a", "frames": "1"}
    assert cache_key(about) == cache_key({"frames": "1", "prompt": "a"})
    assert len({cache_key(about | change) for change in ({}, {"prompt": "b"}, {"frames": "2"}, {"basis": ""})}) == 4


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    first, second, third = fill(cache, "one", "two", "three")
    get(cache, "one")  # wanted again, so the second is now the oldest
    assert cache.prune(9000) == [second]
    assert [entry.key for entry in cache.entries()] == [third, first]
    assert cache.prune(0) == [third, first]


def test_the_bound_holds_after_every_entry(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path, bound=9000)
    for number in range(5):
        fill(cache, f"entry {number}")
        assert sum(entry.bytes for entry in cache.entries()) <= 9000
    assert len(cache.entries()) == 2
    with pytest.raises(UserError, match="--cache-gb"):
        cache.put({"prompt": "large"}, {"latents": torch.zeros(9000)})


def harmed(content: bytes) -> dict[str, bytes]:
    """An entry's content, harmed in many ways."""
    flipped, renamed = bytearray(content), bytearray(content)
    flipped[-5] ^= 1  # one bit of one number
    renamed[content.index(b"a ball")] ^= 1  # one letter of what it was made from
    return {
        "cut": content[:300],
        "flipped": bytes(flipped),
        "renamed": bytes(renamed),
        "empty": b"",
        "foreign": b"text" * 400,
        "huge header": b"\xff" * 8 + content[8:],
        "odd metadata": (header := b'{"__metadata__":{"prompt":[1]}}').__len__().to_bytes(8, "little") + header,
        "odd dtype": content.replace(b"F32", b"F4 "),
    }


@pytest.mark.parametrize("harm", harmed(b"a ball"))
def test_damaged_entries_are_not_believed(harm: str, tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    key, sound = fill(cache, "a ball", "a sound one")
    content, said = harmed(path_of(cache, key).read_bytes())[harm], list[str]()
    path_of(cache, key).write_bytes(content)
    assert len(cache.entries()) == 2
    assert get(cache, "a ball", said) is None
    assert "damaged" in said[0]
    assert not path_of(cache, key).exists()
    path_of(cache, key).write_bytes(content)
    found, damaged = cache.verify()
    assert found == [sound]
    assert [*damaged] == [key]
    assert not path_of(cache, key).exists()


def test_swapped_entries_are_not_believed(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    one, other = (path_of(cache, key) for key in fill(cache, "one", "other"))
    one.rename(tmp_path / "between")
    other.rename(one)
    (tmp_path / "between").rename(other)
    assert [entry.about for entry in cache.entries()] == [None, None]
    assert get(cache, "one") is None
    assert cache.verify() == (
        [],
        {other.stem: "damaged (it was made from other things than its name says) and taken away"},
    )


OTHER_THINGS = "it was made from other things than its name says"
WRONG = {
    "shape": {"latents": torch.zeros(100, 10)},
    "dtype": {"latents": torch.zeros(10, 100).double()},
    "name": {"latent": torch.zeros(10, 100)},
    "more": {"latents": torch.zeros(10, 100), "more": torch.zeros(1)},
    "none": {},
    "infinite": {"latents": torch.full((10, 100), torch.inf)},
    "no number": {"latents": torch.full((10, 100), torch.nan)},
    "scalar": {"latents": torch.tensor(1.0)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_entries_with_other_tensors_are_taken_away(wrong: str, tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    cache.put({"prompt": "a ball"}, WRONG[wrong])  # its digest is the right one
    assert get(cache, "a ball", said := []) is None
    assert "damaged" in said[0]
    assert not cache.entries()


def odd_file(kind: str, path: Path, tmp_path: Path) -> None:
    """Something other than an entry under an entry's name."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "inner").mkdir(parents=True)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "broken link"])
def test_what_is_no_file_is_taken_away(kind: str, tmp_path: Path) -> None:
    cache = InversionCache(tmp_path / "cache")
    key, sound = fill(cache, "a ball", "a sound one")
    odd_file(kind, path_of(cache, key), tmp_path)
    assert [entry.key for entry in cache.entries() if entry.about is not None] == [sound]
    assert get(cache, "a ball") is None
    assert not os.path.lexists(path_of(cache, key))
    path_of(cache, key).touch()
    odd_file(kind, path_of(cache, key), tmp_path)
    assert [*cache.verify()[1]] == [key]
    assert not os.path.lexists(path_of(cache, key))
    path_of(cache, key).touch()
    odd_file(kind, path_of(cache, key), tmp_path)
    assert sound in cache.prune(0)


def test_the_command_lists_what_it_cannot_read_and_steers_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = InversionCache(tmp_path)
    prompt = "a \x1b]0;owned\x07 ball \u202e" + "long " * 10_000
    key, cut = fill(cache, prompt, "cut")
    path_of(cache, cut).write_bytes(b"")
    os.utime(path_of(cache, key), (2**40, 2**40))  # no calendar has such a year
    assert main(["cache", "ls", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert len(out) < 1000
    assert "damaged" in out
    for wrong in (
        ["prune", "--cache_gb=.nan"],
        ["prune", "--cache_gb=.inf"],
        ["prune", "--cache_gb=-1"],
        ["prune"],
        ["ls", "--cache_gb=1"],
    ):
        assert main(["cache", wrong[0], str(tmp_path), *wrong[1:]]) == 1
        assert "cache-gb" in capsys.readouterr().err
    assert main(["cache", "verify", str(tmp_path)]) == 1
    assert main(["cache", "verify", str(tmp_path)]) == 0


@pytest.mark.parametrize("action", ["verify", "prune"])
def test_leftovers_of_killed_writers_go(action: str, tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    (key,) = fill(cache, "a ball")
    left = path_of(cache, key).parent / ".0123.partial"
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"half")
    assert main(["cache", action, str(tmp_path), *(["--cache_gb=1"] if action == "prune" else [])]) == 0
    assert not left.exists()
    assert path_of(cache, key).exists()


@pytest.mark.slow
def test_an_edit_survives_a_cache_with_wrong_tensors(golden_folder: Path, tmp_path: Path) -> None:
    """Of every kind that an inversion has; found ones are found again, with masks, SDEdit and none."""
    cache, said = InversionCache(tmp_path), list[str]()
    runtime = RuntimeConfig(device="cpu", dtype="float32")
    backbone = UNetBackbone.load(str(golden_folder / "model"), runtime)
    editor = FateZero(backbone, runtime, said.append, cache, detail=said.append)
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    methods = {
        "masks": {},
        "none": {"blending": None},
        "SDEdit": {"blending": None, "fusion": None, "sdedit_strength": 0.5},
    }
    for settings in methods.values():
        method = MethodConfig(steps=2, **settings)
        results = []
        for _ in range(2):
            said.clear()
            results.append(editor.edit(frames, "a cat", "a dog", edited_words=("cat",), method=method))
        assert "from the cache" in said[-1]
        for entry in cache.entries():
            cache.put(entry.about, {"clean": torch.zeros(2, 4, 8, 8), "latents": torch.zeros(3, 2, 4, 8, 9)})
        said.clear()
        results.append(editor.edit(frames, "a cat", "a dog", edited_words=("cat",), method=method))
        assert any("damaged" in line for line in said)
        assert all(np.array_equal(result.frames, results[0].frames) for result in results)
        assert len([*tmp_path.glob("*/*.safetensors")]) == 1
        cache.prune(0)
