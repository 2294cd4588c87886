"""The known motion of a clip is cut to the frames that are taken of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fatezero.clips.video import iter_frames, write_frames
from fatezero.data.manifest import read_manifest
from fatezero.errors import UserError
from fatezero.picturebook.benchmark.edits import small_benchmark, write_manifest
from fatezero.picturebook.benchmark.truth import write_truth
from fatezero.types import ClipSpec
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.given_flow import GivenFlow, read_flow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.options import EvaluateVideos
from fatezero_eval.scoring.companions import flow_between
from fatezero_eval.scoring.evaluation import evaluate_videos
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions
from tests.eval.conftest import drifting


@pytest.fixture(scope="module")
def moving_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipSpec, Path]:
    """A clip of Picturebook, and its true flow."""
    folder = tmp_path_factory.mktemp("moving")
    known = read_manifest(write_manifest(folder / "manifest.yaml", "small", small_benchmark(10)))
    request = known.requests[0]
    return request.clip, Path(write_truth(known.truth[request.id], folder / "truth")["flow"])


@pytest.mark.parametrize(
    "taken", [{}, {"start": 4}, {"stride": 2}, {"start": 3, "stride": 2, "frames": 3}, {"fps": 4.0}, {"start": "0.5s"}]
)
def test_an_unedited_clip_is_consistent_whatever_is_taken_of_it(
    taken: dict[str, Any], moving_clip: tuple[ClipSpec, Path]
) -> None:
    clip = replace(moving_clip[0], **{"frames": None, **taken})
    read = partial(iter_frames, clip)
    versions = ClipVersions(
        edited=read, source=read, source_prompt="", target_prompt="", true_flow=flow_between(moving_clip[1], clip)
    )
    error, valid = score(versions, choose(("warp_error", "valid_pixels")), Networks(flow=Dis()))
    assert error.value is not None
    assert valid.value is not None
    assert error.value < 2e-4  # 2e-3 and more by the flow of other frames
    assert valid.value > 0.85


def test_steps_are_followed_one_after_another() -> None:
    right = np.zeros((5, 2, 8, 16), np.float32)
    right[:, 0] = [[[1]], [[2]], [[3]], [[0.5]], [[4]]]
    visible = np.ones((5, 8, 16), bool)
    visible[1, 0, 5] = False
    found = GivenFlow(right, -right, visible).between([0, 2, 2, 4])
    assert found.forward[:, 0, 0, 0].tolist() == [3, 0, 3.5]
    assert found.backward[:, 0, 0, 8].tolist() == [-3, 0, -3.5]
    assert found.visible is not None
    assert np.argwhere(~found.visible).tolist() == [[0, 0, 4]]  # from which the first step leads to column 5
    with pytest.raises(UserError, match="5 pairs, but frame 6 of the clip is taken too"):
        GivenFlow(right, -right).between([0, 6])


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((5, 2, 32, 40), "has 5 pairs, "),
        ((3, 2, 32, 40), "has 3 pairs, but frame 4"),
        ((4, 2, 16, 20), "4 pairs of 20x16"),
        (None, "a.npz: not a flow file"),
    ],
)
def test_a_flow_that_does_not_fit_costs_its_metrics_alone(
    shape: tuple[int, ...] | None, sentence: str, tmp_path: Path
) -> None:
    frames = drifting(5, 0)
    write_frames(tmp_path / "clips" / "a", frames)
    write_frames(tmp_path / "clips" / "b", frames)
    write_frames(tmp_path / "theirs" / "a", frames)
    write_frames(tmp_path / "theirs" / "b", frames)
    for name, size in (("a", shape), ("b", (4, 2, 32, 40))):
        if size is not None:
            flow = np.zeros(size, np.float32)
            flow[:, 0] = -1
            np.savez(tmp_path / f"{name}.npz", forward=flow, backward=-flow)
    edits = [
        {
            "id": name,
            "clip": f"clips/{name}",
            "source_prompt": "",
            "target_prompt": "",
            "truth": {"flow": f"{name}.npz"},
        }
        for name in "ab"
    ]
    (tmp_path / "m.json").write_text(json.dumps(edits), encoding="utf-8")
    found = evaluate_videos(
        EvaluateVideos(
            method="m", videos=tmp_path / "theirs", manifest=tmp_path / "m.json", out=tmp_path / "out",
            metrics=("warp_error", "motion_fidelity"),
        )
    )  # fmt: skip
    ((name, reason),) = found.failures.items()
    assert name == "m/a/0, warp_error"
    assert sentence in reason
    values = {(row.edit, row.metric): row.value for row in found.rows if row.variant == "m"}
    assert values == {
        ("a", "warp_error@1"): None,
        ("a", "motion_fidelity@1"): 0,
        ("b", "warp_error@1"): 0,
        ("b", "motion_fidelity@1"): 0,
    }


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        (np.full((2, 2, 8, 8), np.nan), "holds NaN or infinite values"),
        (np.full((2, 2, 8, 8), -np.inf, np.float16), "holds NaN or infinite values"),
        (np.ones((2, 2, 8, 8), complex), r"not a flow file \(shape \(2, 2, 8, 8\) of complex128\)"),
        (np.ones((2, 2, 8, 8), np.uint8), "of uint8"),
        (np.full((2, 2, 8, 8), "1.0"), "of <U3"),
    ],
)
def test_a_flow_is_of_finite_signed_numbers(forward: npt.NDArray[Any], sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "flow.npz", forward=forward, backward=np.zeros((2, 2, 8, 8)))
    with pytest.raises(UserError, match=sentence):
        read_flow(tmp_path / "flow.npz")
