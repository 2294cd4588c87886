"""Edits of one clip that are scored side by side: the same scores as alone, what they share read and computed once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.networks.array_cache import Arrays
from fatezero_eval.networks.clip import OpenClip
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.given_flow import Flow, GivenFlow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.options import EvaluateRun
from fatezero_eval.scoring import evaluation
from fatezero_eval.scoring.footage import WINDOW, Reel, Video, reels_of
from fatezero_eval.scoring.one_pass import score, scores_of
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions, in_memory

METRICS = choose()
EDITED, UNEDITED, OTHER = range(3)


@pytest.fixture
def edits(make_frames: Callable[..., Frames]) -> list[ClipVersions]:
    """An edit of a clip of two windows, the clip itself beside it, and the clip beside another edit's truth."""
    source = make_frames(WINDOW + 4, 0)
    mask, other_mask = np.zeros_like(source), np.zeros_like(source)
    mask[:, 4:20, 6:30] = other_mask[:, 10:30, :8] = 255
    still = np.zeros((len(source) - 1, 2, *source.shape[1:3]), np.float32)
    shown, known = in_memory(source), GivenFlow(still, still)

    def beside(edited: Video, truth: Frames, where: Frames, prompt: str) -> ClipVersions:
        return ClipVersions(
            edited=edited, source=shown, source_prompt="an owl", target_prompt=prompt, mask=in_memory(where),
            true_edit=in_memory(truth), true_flow=known,
        )  # fmt: skip

    return [
        beside(in_memory(255 - source), 255 - source, mask, "a red owl"),
        beside(shown, 255 - source, mask, "a red owl"),
        beside(shown, source // 2, other_mask, "a fox"),
    ]


def test_scores_are_those_of_each_edit_alone(edits: list[ClipVersions], judge: OpenClip) -> None:
    networks = Networks(flow=Dis(), clip=judge)
    together = list(scores_of(edits, METRICS, networks))
    assert together == [score(edit, METRICS, networks) for edit in edits]
    by_truth = [{found.metric: found.value for found in scores}["ssim/truth@1"] for scores in together]
    assert len(set(by_truth)) == 3  # what differs is not shared


class Counting:
    """A judge and a flow that count what they look at."""

    def __init__(self, judge: OpenClip) -> None:
        self.id, self.logit_scale, self.texts = judge.id, judge.logit_scale, judge.texts
        self._judge, self._flow = judge, Dis()
        self.images_seen = self.pairs_seen = 0

    def images(self, frames: Frames) -> Arrays:
        self.images_seen += len(frames)
        return self._judge.images(frames)

    def __call__(self, before: Frames, after: Frames) -> Flow:
        self.pairs_seen += 1
        return self._flow(before, after)


def test_what_edits_share_is_seen_once(edits: list[ClipVersions], judge: OpenClip) -> None:
    counting, frames = Counting(judge), WINDOW + 4
    assert len(list(scores_of(edits, METRICS, Networks(flow=counting, clip=counting)))) == 3
    assert counting.images_seen == 2 * frames  # the edit and the clip
    assert counting.pairs_seen == 2 * (frames - 1)


def test_a_shared_video_is_read_once(make_frames: Callable[..., Frames]) -> None:
    source, readings = make_frames(WINDOW + 4, 1), []

    def video(size: int) -> Iterator[Frames]:
        readings.append(size)
        yield from in_memory(source)(size)

    clips = [
        ClipVersions(edited=in_memory(source // k), source=video, source_prompt="", target_prompt="") for k in (2, 3, 4)
    ]
    assert len(list(scores_of(clips, choose(("valid_pixels",)), Networks(flow=Dis())))) == 3
    assert readings == [WINDOW]


@pytest.mark.parametrize("length", [WINDOW - 2, WINDOW, WINDOW + 2])
def test_an_edit_that_ends_too_early_costs_no_other(length: int, edits: list[ClipVersions], judge: OpenClip) -> None:
    networks = Networks(flow=Dis(), clip=judge)
    (whole,) = edits[EDITED].edited(1000)
    short = ClipVersions(
        edited=in_memory(whole[:length]), source=edits[EDITED].source, source_prompt="an owl", target_prompt="a red owl"
    )
    found = list(scores_of([edits[EDITED], short, edits[OTHER]], METRICS, networks))
    assert found[::2] == [score(edit, METRICS, networks) for edit in (edits[EDITED], edits[OTHER])]
    assert isinstance(found[1], UserError)
    assert f"differ in length: edited {length}, " in str(found[1])


def test_a_reel_holds_a_window_until_all_have_seen_it(make_frames: Callable[..., Frames]) -> None:
    video = in_memory(make_frames(2 * WINDOW, 2))
    reel: Reel = reels_of([video, video])[video]
    first = reel.at(0)
    assert first is reel.at(0)
    assert first is not None
    left = weakref.ref(first)
    del first
    gc.collect()
    assert left() is None
    second = reel.at(1)
    assert second is not None
    assert (second.start, second.overlap, len(second.frames), len(second.fresh)) == (WINDOW - 1, 1, WINDOW + 1, WINDOW)
    assert reel.at(1) is second
    assert reel.at(2) is None


def test_memory_does_not_grow_with_the_number_of_edits() -> None:
    """Score five edits of 100 frames side by side while counting how many decoded frames are alive at a time."""
    alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
    most = 0

    class Noticed(np.ndarray):
        __hash__ = object.__hash__  # type: ignore[assignment]

    def noticed(frames: Frames) -> Frames:
        nonlocal most
        found = frames.view(Noticed)
        alive.add(found)
        most = max(most, sum(len(array) for array in alive))
        return found

    def frames_of(shade: int) -> Video:
        def video(size: int) -> Iterator[Frames]:
            for start in range(0, 100, size):
                yield noticed(np.full((min(size, 100 - start), 16, 16, 3), shade, np.uint8))

        return video

    source = frames_of(0)
    clips = [
        ClipVersions(edited=frames_of(shade), source=source, source_prompt="", target_prompt="") for shade in range(5)
    ]
    found = list(scores_of(clips, choose(("temporal_flickering",)), Networks(flow=Dis())))
    assert len(found) == 5
    assert most <= 4 * WINDOW  # the source's window, an edit's, the one before it and the next


@pytest.mark.slow
def test_rows_do_not_depend_on_how_many_are_scored_side_by_side(
    run_folder: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = EvaluateRun(run=run_folder, manifest=run_folder.parent.parent / "manifest.jsonl", judge=str(tiny_clip))
    together = evaluation.evaluate_run(wanted)
    monkeypatch.setattr(evaluation, "SIDE_BY_SIDE", 1)
    alone = evaluation.evaluate_run(EvaluateRun(**{**vars(wanted), "out": run_folder.parent / "alone"}))
    assert alone.rows == together.rows
    assert not alone.failures
