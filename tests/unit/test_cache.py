"""Kept inversions: found again, bounded, and never believed when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fatezero.errors import UserError
from fatezero.runs.inversion_cache import InversionCache, cache_key

CPU = torch.device("cpu")


def fill(cache: InversionCache, *names: str) -> list[str]:
    """Put 4 kB under each name, a second apart."""
    keys = [cache_key({"prompt": name}) for name in names]
    for age, (name, key) in enumerate(zip(names, keys, strict=True)):
        cache.put({"prompt": name}, {"latents": torch.full((10, 100), float(len(name)))})
        path = cache.folder / key[:2] / f"{key}.safetensors"
        os.utime(path, (1000 + age, 1000 + age))
    return keys


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    fill(cache, "a ball")
    found = cache.get({"prompt": "a ball"}, CPU)
    assert found is not None
    assert torch.equal(found["latents"], torch.full((10, 100), 6.0))
    assert cache.get({"prompt": "another"}, CPU) is None
    assert [entry.about["prompt"] for entry in cache.entries()] == ["a ball"]


def test_keys_tell_everything_apart() -> None:
    about = {"prompt": "a", "frames": "1"}
    assert cache_key(about) == cache_key({"frames": "1", "prompt": "a"})
    assert len({cache_key(about | change) for change in ({}, {"prompt": "b"}, {"frames": "2"}, {"basis": ""})}) == 4


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    first, second, third = fill(cache, "one", "two", "three")
    cache.get({"prompt": "one"}, CPU)  # wanted again, so the second is now the oldest
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


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "foreign"])
def test_damaged_entries_are_not_believed(harm: str, tmp_path: Path) -> None:
    cache = InversionCache(tmp_path)
    key, sound = fill(cache, "a ball", "a sound one")
    path = tmp_path / key[:2] / f"{key}.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit of one number
    path.write_bytes({"cut": content[:300], "flipped": content, "empty": b"", "foreign": b"text" * 400}[harm])
    assert cache.get({"prompt": "a ball"}, CPU) is None
    assert cache.verify() == ([sound], [key])
    assert not path.exists()
