"""Does the judge judge, and is estimated flow good enough? Measured where the truth is known.

`pytest tests/eval/test_judge_on_picturebook.py -m slow -s` prints the table of flows in docs/results/scoring.md.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fatezero.clips.video import read_clip
from fatezero.data.manifest import read_manifest
from fatezero.picturebook.benchmark.recipes import ClipRecipe, TrueClip
from fatezero.picturebook.benchmark.truth import both_flows, one_surface, render_truth, write_truth
from fatezero.picturebook.world.scenes import Scene
from fatezero.shipped import JUDGE
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.metrics import warp_error
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import load_clip
from fatezero_eval.networks.flow import Dis, Farneback
from fatezero_eval.networks.given_flow import GivenFlow, read_flow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring import suite
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.windows import ClipVersions, in_memory
from fatezero_eval.validity.degradations import KnownEdit, degraded

MANIFEST = Path(__file__).parents[2] / "datasets" / "picturebook" / "manifest.yaml"


@dataclass(frozen=True)
class Case:
    """One edit of the bench, rendered."""

    request: EditRequest
    source: TrueClip
    target: TrueClip
    flow: GivenFlow

    def clip(self, frames, flow=None):
        return ClipVersions(
            edited=in_memory(frames),
            source=in_memory(self.source.frames),
            source_prompt=self.request.source_prompt,
            target_prompt=self.request.target_prompt,
            true_flow=flow,
        )


@pytest.fixture(scope="module")
def cases():
    """All edits of the bench."""
    manifest = read_manifest(MANIFEST)
    found = []
    for request in manifest.requests:
        stated = manifest.truth[request.id]
        source, target = render_truth(stated)
        flows = map(np.ascontiguousarray, both_flows(stated, source))
        found.append(Case(request, source, target, GivenFlow(*flows, one_surface(source))))
    return found


def test_written_truth_is_what_was_rendered_and_follows_its_motion(tmp_path):
    scene = Scene(object="fox", background="snow")
    recipe = ClipRecipe(scene=scene, seed=7, frames=6, pan=12.0)
    stated = {"recipe": asdict(recipe), "target": asdict(replace(scene, object="wolf"))}
    paths = write_truth(stated, tmp_path / "truth")
    clip, _ = render_truth(stated)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).double() / 255
    flow = read_flow(Path(paths["flow"]))
    forward, backward = torch.from_numpy(flow.forward), torch.from_numpy(flow.backward)
    error = warp_error.warp_error(frames, forward, backward)
    assert error < 1e-4
    assert warp_error.warp_error(frames, backward, forward) > 10 * error
    mask = read_clip(ClipSpec(path=paths["mask"])).frames[..., 0] > 127
    assert (mask | ~clip.mask).all()
    edited = read_clip(ClipSpec(path=paths["clip"])).frames
    change = np.abs(edited.astype(int) - clip.frames).max(-1)
    assert np.median(change[~mask]) == 0
    assert change[~mask].mean() < 0.1 * change[mask].mean()  # only soft edges and shadows reach out of the mask
    before = (tmp_path / "truth" / "flow.npz").stat().st_mtime_ns
    assert write_truth(stated, tmp_path / "truth") == paths
    assert (tmp_path / "truth" / "flow.npz").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_judge_tells_true_edits_from_their_sources(cases):
    networks = Networks(flow=Dis(), clip=load_clip(str(JUDGE)))
    metrics = suite.choose(("text_alignment", "frame_accuracy"))

    def values(frames_of):
        return np.array([[s.value for s in score(c.clip(frames_of(c)), metrics, networks)] for c in cases]).T

    (alignment, accuracy), (unedited, _) = values(lambda c: c.target.frames), values(lambda c: c.source.frames)
    assert np.mean(alignment > unedited) >= 0.98
    assert accuracy.mean() >= 0.97


@pytest.mark.slow
def test_estimated_flow_beside_the_true_one(cases, capsys, tmp_path):
    """Warp error by three flows on one edit of every clip, by the kind of edit."""
    means = {}
    for number, case in enumerate(cases[::2]):
        known = KnownEdit(source=case.source.frames, true_edit=case.target.frames)
        named = {
            "unedited": known.source,
            "true edit, flickering": degraded(known, "flicker-5", number),
            "true edit, noisy": degraded(known, "noise-2", number),
            f"true edit of {case.request.category}": known.true_edit,
        }
        for version, frames in named.items():
            for name, estimator, flow in (
                ("true", Dis(), case.flow),
                ("DIS", Dis(), None),
                ("Farneback", Farneback(), None),
            ):
                networks = Networks(flow=estimator, cache=ArrayCache(tmp_path))
                (found,) = score(case.clip(frames, flow), suite.choose(("warp_error",)), networks)
                means.setdefault(version, {}).setdefault(name, []).append(1000 * found.value)
    with capsys.disabled():
        print("\n| warp error x 1000 | true flow | DIS | Farneback |\n|---|---:|---:|---:|")
        for version, values in means.items():
            true, *others = (np.mean(values[name]) for name in ("true", "DIS", "Farneback"))
            print(f"| {version} | {true:.3f} | " + " | ".join(f"{v:.3f} ({v / true - 1:+.0%})" for v in others) + " |")
        print(f"unedited, by true flow: largest {max(means['unedited']['true']):.3f}")
    assert np.mean(means["unedited"]["true"]) < 0.1
    for version in ("true edit, flickering", "true edit, noisy"):  # as edits by any method are
        assert np.mean(means[version]["DIS"]) == pytest.approx(np.mean(means[version]["true"]), rel=0.2)
