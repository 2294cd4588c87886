"""Does the judge judge, and is estimated flow good enough? Measured where the truth is known.

`pytest tests/eval/test_picturebook.py -m slow -s` prints the tables of eval/README.md.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from fatezero.data.manifest import read_manifest
from fatezero.picturebook.bench import render_truth
from fatezero.picturebook.clips import ClipRecipe, motion, object_motion, render_clip, true_flow
from fatezero.picturebook.world import Scene
from fatezero_eval import judge, suite, warp_error
from fatezero_eval.clips import EditedClip, Models, in_memory
from fatezero_eval.config import PICTUREBOOK_CLIP
from fatezero_eval.encoders import load_clip
from fatezero_eval.flow import Dis, Farneback, GivenFlow
from fatezero_eval.models import clip_location
from fatezero_eval.scoring import score

MANIFEST = Path(__file__).parents[2] / "datasets" / "picturebook" / "manifest.yaml"


def given_flow(recipe, clip):
    """Both directions of a clip's motion."""
    poses, cameras = motion(recipe), np.linspace(-recipe.pan / 2, recipe.pan / 2, recipe.frames)
    backward = []
    for t in range(recipe.frames - 1):
        move = object_motion(recipe.scene.object, poses[t + 1], poses[t])
        backward.append(true_flow(clip.mask[t + 1], clip.mask[t], move, cameras[t + 1] - cameras[t])[0])
    return GivenFlow(*(np.ascontiguousarray(f.transpose(0, 3, 1, 2)) for f in (clip.flow, np.stack(backward))))


def edit_mask(source, target, stated):
    """Where frames may change: everywhere (style), off the object (background), else on both objects."""
    before, after = stated["recipe"]["scene"], stated["target"]
    if before["style"] != after["style"]:
        return np.ones_like(source.mask)
    return ~source.mask if before["background"] != after["background"] else source.mask | target.mask


@pytest.fixture(scope="module")
def cases():
    """All edits of the bench; the wrong edit of each is the other edit of the same clip."""
    manifest = read_manifest(MANIFEST)
    rendered = {}
    for request in manifest.requests:
        stated = manifest.truth[request.id]
        recipe = ClipRecipe(**{**stated["recipe"], "scene": Scene(**stated["recipe"]["scene"])})
        source, target = render_truth(stated)
        flow = given_flow(recipe, source)
        rendered.setdefault(request.clip.path, []).append((request, source, target, stated, flow))
    found = []
    for pair in rendered.values():
        for (request, source, target, stated, flow), (_, _, other, _, _) in zip(pair, pair[::-1], strict=True):
            found.append(
                judge.Case(
                    source=source.frames,
                    true_edit=target.frames,
                    wrong_edit=other.frames,
                    source_prompt=request.source_prompt,
                    target_prompt=request.target_prompt,
                    mask=edit_mask(source, target, stated),
                    true_flow=flow,
                )
            )
    return found


def test_the_true_clip_follows_its_true_flow():
    recipe = ClipRecipe(scene=Scene(object="fox", background="snow"), seed=7, frames=6, pan=12.0)
    clip = render_clip(recipe)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).double() / 255
    flow = given_flow(recipe, clip)
    forward, backward = torch.from_numpy(flow.forward), torch.from_numpy(flow.backward)
    error = warp_error.warp_error(frames, forward, backward)
    assert error < 1e-4
    assert warp_error.warp_error(frames, backward, forward) > 10 * error


@pytest.mark.slow
def test_the_judge_judges(cases, capsys):
    models = Models(flow=Dis(), clip=load_clip(clip_location(PICTUREBOOK_CLIP)))
    names = (
        "text_alignment",
        "frame_accuracy",
        "directional*",
        "frame_consistency*",
        "warp_e*",
        "warp_ssim*",
    )
    metrics = suite.choose((*names, "temporal*", "motion*", "psnr/[ot]*", "ssim/[ot]*", "mse/truth"))
    verdicts = judge.judge(cases, metrics, models)
    with capsys.disabled():
        print(f"\n{len(cases)} edits, {models.clip.id}\n{judge.table(verdicts)}")
    found = {(v.metric.split("@")[0], v.version): v for v in verdicts}
    assert found["text_alignment", "source"].beaten >= 0.98
    assert found["frame_accuracy", "true edit"].mean >= 0.97
    for version in ("shuffled", "flickering"):
        assert found["warp_error", version].beaten >= 0.98


@pytest.mark.slow
def test_estimated_flow_stands_in_for_the_true_one(cases, capsys):
    """Warp error with DIS and Farneback beside the true flow's, on every third edit of the bench."""
    metrics = suite.choose(("warp_error",))
    sums = {}
    for number, case in enumerate(cases[::3]):
        for version, frames in judge.versions(case, number).items():
            for name, estimator, flow in (
                ("true", Dis(), case.true_flow),
                ("dis-medium", Dis(), None),
                ("farneback", Farneback(), None),
            ):
                clip = EditedClip(
                    edited=in_memory(frames),
                    source=in_memory(case.source),
                    source_prompt="",
                    target_prompt="",
                    true_flow=flow,
                )
                (found,) = score(clip, metrics, Models(flow=estimator))
                sums.setdefault((version, name), []).append(found.value)
    means = {key: 1000 * np.mean(values) for key, values in sums.items()}
    with capsys.disabled():
        print("\n| warp error x 1000 | true flow | DIS | Farneback |\n|---|---:|---:|---:|")
        for version in dict.fromkeys(version for version, _ in means):
            row = [means[version, name] for name in ("true", "dis-medium", "farneback")]
            print(
                f"| {version} | {row[0]:.4f} | "
                + " | ".join(f"{v:.4f} ({v / row[0] - 1:+.0%})" for v in row[1:])
                + " |"
            )
    assert max(sums["source", "true"]) < 1e-4
