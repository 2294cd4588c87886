"""Where recordings of the source's attention are kept: order, errors, equal bytes; CUDA's store is in tests/cuda."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fatezero.errors import UserError
from fatezero.source_attention.stores import DiskStore, Key, MemoryStore, Recording, Store, next_wanted

CPU = torch.device("cpu")
KEYS: list[Key] = [(step, chunk) for step in range(3) for chunk in range(2)]
AS_EDITED: list[Key] = [(2, 0), (2, 1), (1, 0), (1, 1), (0, 0), (0, 1)]


def recording(key: Key, dtype: torch.dtype = torch.float32) -> Recording:
    """Queries as a layer gives them, heads before tokens in an order of memory that is the other way round."""
    generator = torch.Generator().manual_seed(10 * key[0] + key[1])
    queries = torch.randn(3, 5, 2, 4, generator=generator).to(dtype).transpose(1, 2)
    return {"site/queries": queries, "site/keys": queries[:1] + 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def put_all(store: Store) -> None:
    for key in KEYS:
        store.put(key, recording(key))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("step*.safetensors"))


def test_an_edit_asks_from_the_last_step_to_the_first() -> None:
    asked: list[Key | None] = [(2, 0)]
    while asked[-1] is not None:
        asked.append(next_wanted(asked[-1], KEYS))
    assert asked == [*AS_EDITED, None]
    assert next_wanted((2, 1), [(0, 1), (2, 1), (0, 0)]) == (0, 0)  # steps that are not fused are not kept


@pytest.mark.parametrize("make", [lambda: MemoryStore(CPU), DiskStore])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_recording_comes_back_as_it_was(make: Callable[[], Store], dtype: torch.dtype) -> None:
    """In the order of an edit, again by the next edit, and in any other order."""
    store = make()
    for key in KEYS:
        store.put(key, recording(key, dtype))
    assert store.bytes_kept == sum(t.nbytes for key in KEYS for t in recording(key, dtype).values())
    for key in [*AS_EDITED, *AS_EDITED, (0, 1), (2, 0), (0, 0), (0, 0), (1, 1)]:
        found, expected = store.get(key, CPU), recording(key, dtype)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_on_the_cpu_nothing_is_copied() -> None:
    store, kept = MemoryStore(CPU), recording((0, 0))
    store.put((0, 0), kept)
    assert store.get((0, 0), CPU)["site/queries"].data_ptr() == kept["site/queries"].data_ptr()


def test_what_was_taken_away_is_said(folder: Path) -> None:
    store = DiskStore()
    put_all(store)
    store.get((2, 1), CPU)  # written, and so all before it
    for file in files(folder)[:1]:
        file.unlink()
    with pytest.raises(UserError, match=r"cannot be read any more .* or use backend 'recompute'"):
        store.get((0, 0), CPU)


def test_what_cannot_be_written_is_said_while_others_are_put(folder: Path) -> None:
    store = DiskStore()
    store.put((0, 0), recording((0, 0)))
    store.get((0, 0), CPU)  # written
    (file,) = files(folder)
    file.unlink()
    file.parent.rmdir()
    complaint = r"cannot be kept in .*: free some space, point TMPDIR elsewhere, or use backend 'recompute'"
    with pytest.raises(UserError, match=complaint):
        put_all(store)
    with pytest.raises(UserError, match=complaint):
        store.get((0, 1), CPU)


def test_the_folder_goes_with_the_store(folder: Path) -> None:
    """Also while its thread has recordings to write."""
    store = DiskStore()
    put_all(store)
    del store
    gc.collect()
    assert not files(folder)
