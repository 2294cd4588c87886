"""The truth of the benchmark as files: recipes of this world alone, written once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fatezero.errors import UserError
from fatezero.picturebook.benchmark.truth import check_recipe, write_truth

RECIPE: dict[str, Any] = {
    "recipe": {"scene": {"object": "cat", "background": "snow"}, "seed": 1, "frames": 2},
    "target": {"object": "dog", "background": "snow"},
}


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": None},
        {"recipe": RECIPE["recipe"] | {"frames": 10**9}},
        {"recipe": RECIPE["recipe"] | {"frames": 2.5}},
        {"recipe": RECIPE["recipe"] | {"seed": -1}},
        {"recipe": RECIPE["recipe"] | {"pan": 1e9}},
        {"recipe": RECIPE["recipe"] | {"distractor": "unicorn"}},
        {"recipe": RECIPE["recipe"] | {"scene": {"object": ["cat"], "background": "snow"}}},
        {"recipe": RECIPE["recipe"] | {"more": 1}},
        {"target": {"object": "dog", "background": "moon"}},
        {"target": 3},
    ],
)
def test_a_recipe_of_another_world_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    check_recipe(RECIPE)
    for use in (check_recipe, lambda stated: write_truth(stated, tmp_path / "truth")):
        with pytest.raises(UserError, match=r"^the truth "):
            use(RECIPE | changed)
    assert not (tmp_path / "truth").exists()


def test_a_truth_of_files_is_those_files(tmp_path: Path) -> None:
    stated = {"mask": str(tmp_path / "mask.mp4"), "held_out": True}
    assert write_truth(stated, tmp_path / "truth") == stated
    assert not (tmp_path / "truth").exists()


def test_a_truth_is_written_once_whoever_wants_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: write_truth(RECIPE, tmp_path / "truth"), range(3)))
    assert found[0] == found[1] == found[2]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    write_truth(RECIPE, tmp_path / "truth")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert all(Path(path).exists() for path in found[0].values())
