"""The benchmark of scoring, flat memory, and metric states across processes."""

import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from fatezero_eval.metrics.text import TextAlignment
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring import suite, throughput
from fatezero_eval.scoring.footage import WINDOW
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.windows import ClipVersions, in_memory


def test_a_benchmark_measures_and_splits_time(tiny_clip):
    found = throughput.measure(throughput.Workload(20, 32, str(tiny_clip)))
    assert found.frames == 20
    assert 0 < found.encoding < found.cpu
    assert found.peak > 10**7


def test_no_more_than_a_few_windows_are_held():
    """Score 200 frames while counting how many decoded frames are alive at a time."""
    alive, most = weakref.WeakSet(), 0

    class Counted(np.ndarray):
        __hash__ = object.__hash__

    def video(size):
        nonlocal most
        for start in range(0, 200, size):
            count = min(size, 200 - start)
            frames = np.full((count, 16, 16, 3), start % 251, np.uint8).view(Counted)
            alive.add(frames)
            most = max(most, sum(len(array) for array in alive))
            yield frames
            del frames

    clip = ClipVersions(edited=video, source=video, source_prompt="", target_prompt="")
    (found,) = score(clip, suite.choose(("temporal_flickering",)), Networks(flow=Dis()))
    assert found.defined == 199
    assert most <= 2 * 3 * WINDOW  # edited and source: the window at hand, the one before and the next


def test_a_video_in_memory_is_cut_without_copies():
    frames = np.zeros((5, 2, 2, 3), np.uint8)
    pieces = list(in_memory(frames)(2))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert all(np.shares_memory(piece, frames) for piece in pieces)


RANK = """
import sys, torch
from fatezero_eval.metrics.text import TextAlignment
from fatezero_eval.metrics.warp_error import WarpError
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
text, warp = TextAlignment(), WarpError()
for number in range(rank, 5, world):
    clip = torch.nn.functional.normalize(torch.arange(1.0, 2 * (number + 1) + 1).reshape(-1, 2), dim=-1)
    text.update(clip, torch.tensor([1.0, 0.0]))
    frames = torch.linspace(0, 1, (number + 1) * 3 * 64).reshape(-1, 3, 8, 8)
    warp.update(frames, torch.zeros(number, 2, 8, 8), torch.zeros(number, 2, 8, 8))
print(repr(text.compute().item()), repr(warp.compute().item()))
"""


@pytest.mark.slow
def test_metric_states_are_the_same_in_any_number_of_processes(tmp_path):
    """Five clips of unequal length, one of a single frame, on one, two and three processes."""
    results = {}
    for world in (1, 2, 3):
        command = [sys.executable, "-c", RANK]
        store = tmp_path / f"store-{world}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([*command, str(rank), str(world), str(store)], stdout=subprocess.PIPE, env=environment)
            for rank in range(world)
        ]
        outputs = {rank.communicate(timeout=300)[0].decode() for rank in ranks}
        assert len(outputs) == 1  # every process prints the same
        results[world] = [float(word) for word in outputs.pop().split()[:2]]
    for world in (2, 3):
        np.testing.assert_allclose(results[world], results[1], rtol=1e-12)  # five numbers in another order


def test_an_empty_state_has_no_mean():
    with pytest.warns(UserWarning, match="before the"):
        assert TextAlignment().compute().isnan()
