from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fatezero.picturebook.models import pool
from fatezero.picturebook.world.scenes import held_out


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 6)


def test_shard_holds_its_series(tmp_path: Path) -> None:
    shard = pool.read_shard(pool.render_shard(tmp_path, 7, 1))
    scene, image, mask = pool.draw_sample(7, 6 + 2)
    assert shard.scenes[2] == scene
    assert (shard.images[2] == image).all()
    assert shard.coverage[2].mean() / 255 == pytest.approx(mask.mean(), abs=0.005)
    assert not any(held_out(scene) for scene in shard.scenes)


def test_rendered_shard_is_kept(tmp_path: Path) -> None:
    folder = pool.render_shard(tmp_path, 7, 0)
    before = (folder / "images.npy").stat().st_mtime_ns
    assert pool.render_shard(tmp_path, 7, 0) == folder
    assert (folder / "images.npy").stat().st_mtime_ns == before


def test_interrupted_rendering_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            pool.render_shard(tmp_path, 7, 0)
    assert len(pool.read_shard(pool.render_shard(tmp_path, 7, 0)).scenes) == 6


def test_series_and_shards_differ(tmp_path: Path) -> None:
    shards = [pool.read_shard(pool.render_shard(tmp_path, *name)) for name in ((7, 0), (7, 1), (8, 0))]
    assert len({shard.images[:].tobytes() for shard in shards}) == 3
