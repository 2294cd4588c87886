"""Does the judge judge, and is estimated flow good enough? Measured where the truth is known.

`pytest tests/eval/test_judge_on_picturebook.py -m slow -s` prints the tables of eval/README.md.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fatezero.clips.video import read_clip
from fatezero.data.manifest import read_manifest
from fatezero.picturebook.benchmark.recipes import ClipRecipe
from fatezero.picturebook.benchmark.truth import both_flows, edit_mask, one_surface, render_truth, write_truth
from fatezero.picturebook.world.scenes import Scene
from fatezero.shipped import JUDGE
from fatezero.types import ClipSpec
from fatezero_eval.metrics import warp_error
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import load_clip
from fatezero_eval.networks.flow import Dis, Farneback, GivenFlow, read_flow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring import judge_validation, suite
from fatezero_eval.scoring.one_pass import score

MANIFEST = Path(__file__).parents[2] / "datasets" / "picturebook" / "manifest.yaml"


@pytest.fixture(scope="module")
def cases():
    """All edits of the bench; with their category; the wrong edit of each is the clip's other edit."""
    manifest = read_manifest(MANIFEST)
    rendered = {}
    for request in manifest.requests:
        stated = manifest.truth[request.id]
        source, target = render_truth(stated)
        rendered.setdefault(request.clip.path, []).append((request, source, target, stated))
    found = []
    for pair in rendered.values():
        for (request, source, target, stated), (_, _, other, _) in zip(pair, pair[::-1], strict=True):
            found.append(
                (
                    request.category,
                    judge_validation.Case(
                        source=source.frames,
                        true_edit=target.frames,
                        wrong_edit=other.frames,
                        source_prompt=request.source_prompt,
                        target_prompt=request.target_prompt,
                        mask=edit_mask(stated, source, target),
                        true_flow=GivenFlow(
                            *map(np.ascontiguousarray, both_flows(stated, source)), one_surface(source)
                        ),
                    ),
                )
            )
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


SEEN_BY_CLIP = ("text_alignment", "frame_accuracy", "directional_similarity", "frame_consistency*")
SEEN_IN_PIXELS = ("warp_error*", "warp_ssim*", "temporal*", "motion*", "[ps]s*/[ot]*", "mse/truth")


def report(cases, names, cache, capsys):
    """Print the table of these metrics; their verdicts by name and version."""
    judge_clip = load_clip(str(JUDGE))
    networks = Networks(flow=Dis(), clip=judge_clip, cache=ArrayCache(cache))
    verdicts = judge_validation.validate([case for _, case in cases], suite.choose(names), networks)
    with capsys.disabled():
        print(f"\n{len(cases)} edits, {judge_clip.id}\n{judge_validation.table(verdicts)}", flush=True)
    return {(v.metric.split("@")[0], v.version): v for v in verdicts}


@pytest.mark.slow
def test_the_judge_judges(cases, capsys, tmp_path):
    found = report(cases, SEEN_BY_CLIP, tmp_path, capsys)
    assert found["text_alignment", "source"].beaten >= 0.98
    assert found["frame_accuracy", "true edit"].mean >= 0.97


@pytest.mark.slow
def test_motion_and_fidelity_see_what_is_wrong(cases, capsys, tmp_path):
    """On every sixth edit."""
    found = report(cases[::6], SEEN_IN_PIXELS, tmp_path, capsys)
    for version in ("shuffled", "flickering"):
        assert found["warp_error", version].beaten >= 0.98
        assert found["temporal_flickering", version].beaten >= 0.98
    for version in ("source", "shuffled", "flickering", "wrong edit"):
        assert found["psnr/truth", version].beaten == 1


@pytest.mark.slow
def test_estimated_flow_beside_the_true_one(cases, capsys, tmp_path):
    """Warp error by three flows on one edit of every clip, by the kind of edit."""
    means = {}
    for number, (category, case) in enumerate(list(cases)[::2]):
        versions = judge_validation.versions(case, number)
        noise = np.random.default_rng(number).normal(0, 8, case.true_edit.shape)
        named = {
            "unedited": versions["source"],
            "true edit, flickering": versions["flickering"],
            "true edit, noisy": np.clip(np.rint(case.true_edit + noise), 0, 255).astype(np.uint8),
            f"true edit of {category}": versions["true edit"],
        }
        for version, frames in named.items():
            for name, estimator, flow in (
                ("true", Dis(), case.true_flow),
                ("DIS", Dis(), None),
                ("Farneback", Farneback(), None),
            ):
                clip = replace(judge_validation.edited_clip(case, frames), true_flow=flow)
                networks = Networks(flow=estimator, cache=ArrayCache(tmp_path))
                (found,) = score(clip, suite.choose(("warp_error",)), networks)
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
