"""What other suites print, through the whole pass over a clip, against computations that are not ours."""

from dataclasses import replace
from itertools import combinations, pairwise

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat
from skimage.metrics import structural_similarity

from fatezero.clips.video import write_frames
from fatezero.data.manifest import read_manifest
from fatezero.errors import UserError
from fatezero_eval.metrics import fidelity
from fatezero_eval.metrics.niqe import niqe_of_frames
from fatezero_eval.networks.aesthetic_head import load_aesthetic
from fatezero_eval.networks.dino import ARCHITECTURES, Dino, architecture_of, load_dino
from fatezero_eval.networks.flow import load_flow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.networks.photo_statistics import load_photo_statistics
from fatezero_eval.networks.point_tracks import LucasKanade, TrackedClip, first_points
from fatezero_eval.options import ScoringOptions
from fatezero_eval.scoring.checks import roles_of, runnable_metrics
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.scoring_jobs import companions_of
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions, in_memory

FRAMES = 19  # more than a window, and odd in the second


def clip_of(edited, source, mask=None, target_mask=None, target="an owl"):
    masks = {"mask": mask, "target_mask": target_mask}
    named = {name: in_memory(frames) for name, frames in masks.items() if frames is not None}
    return ClipVersions(
        edited=in_memory(edited), source=in_memory(source), source_prompt="an owl", target_prompt=target, **named
    )


def value_of(metric, clip, /, **networks):
    (found,) = score(clip, choose([metric]), Networks(flow=load_flow("dis"), **networks))
    assert found.value is not None, found.reason
    return found.value


def textured(frames, seed, step=2, size=(72, 96)):
    """A rough picture that moves by some pixels a frame to the right, uint8 F,H,W,3."""
    canvas = np.random.default_rng(seed).random((size[0], size[1] + step * frames, 3))
    canvas = cv2.GaussianBlur(canvas, (0, 0), 2)
    canvas = np.uint8(255 * (canvas - canvas.min()) / np.ptp(canvas))
    return np.stack([canvas[:, step * t : step * t + size[1]] for t in range(frames)])


@pytest.fixture(scope="module")
def clips():
    source = textured(FRAMES, 0)
    shake = np.random.default_rng(1).integers(-20, 21, source.shape)
    return np.clip(source.astype(int) + shake, 0, 255).astype(np.uint8), source


@pytest.fixture(scope="module")
def dino():
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, depth=2)
    return vit, Dino(vit, "tiny")


def test_subjects_are_the_networks_own_output(dino, make_frames):
    vit, network = dino
    frames = make_frames(3, 0, height=32, width=48)
    with torch.inference_mode():
        raw = [vit(network._prepare(Image.fromarray(frame))[None])[0].double().numpy() for frame in frames]
    units = [vector / np.linalg.norm(vector) for vector in raw]
    np.testing.assert_allclose(network.subjects(frames), units, atol=1e-5)
    clip = clip_of(frames, frames)
    expected = np.mean([(max(0, b @ a) + max(0, b @ units[0])) / 2 for a, b in pairwise(units)])
    assert value_of("subject_consistency", clip, dino=network) == pytest.approx(expected, abs=1e-5)
    expected = np.mean([a @ b for a, b in pairwise(units)])
    assert value_of("subject_consistency/adjacent", clip, dino=network) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_every_architecture_is_told_by_its_weights():
    for name in ARCHITECTURES.values():
        with torch.device("meta"):
            weights = timm.create_model(name, num_classes=0).state_dict()
        assert architecture_of(weights) == name


@pytest.mark.slow
def test_weights_of_dino_name_the_model_and_others_are_refused(tmp_path):
    torch.manual_seed(0)
    name = "vit_small_patch14_dinov2"
    weights = timm.create_model(name, num_classes=0, dynamic_img_size=True).state_dict()
    save_file(weights, tmp_path / "here.safetensors")
    network = load_dino(tmp_path / "here.safetensors")
    assert network.id.startswith(f"{name}:")
    assert network.subjects(np.zeros((1, 28, 28, 3), np.uint8)).shape == (1, 384)
    save_file({**weights, "norm.weight": torch.full((384,), torch.nan)}, tmp_path / "nan.safetensors")
    torch.save(weights, tmp_path / "pickle.safetensors")
    del weights["blocks.3.norm1.weight"]
    save_file(weights, tmp_path / "less.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file({"patch_embed.proj.weight": torch.zeros(384, 3, 32, 32)}, tmp_path / "coarse.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for file, why in {
        "nan": r"norm\.weight is infinite or NaN",
        "pickle": "it is a pickle: run fatezero convert on it",
        "less": "Missing key",
        "other": "no 'patch_embed.proj.weight'",
        "coarse": "none has the width 384, patches of 32",
        "folder": "there is no such file",
        "none": "there is no such file",
    }.items():
        sentence = rf"{file}\.safetensors: not the safetensors weights of a DINO of timm's \(.*{why}"
        with pytest.raises(UserError, match=sentence):
            load_dino(tmp_path / f"{file}.safetensors")


def test_aesthetic_quality_is_a_linear_head_on_the_judge(judge, make_frames, tmp_path):
    weight, bias = torch.randn(1, 16), torch.tensor([5.0])
    save_file({"weight": weight, "bias": bias}, tmp_path / "head.safetensors")
    head = load_aesthetic(tmp_path / "head.safetensors", judge)
    frames = make_frames(3, 0)
    with torch.inference_mode():
        ratings = torch.nn.functional.linear(torch.from_numpy(judge.images(frames)["projected"]), weight, bias)
    found = value_of("aesthetic_quality", clip_of(frames, frames), clip=judge, aesthetic=head)
    assert found == pytest.approx(ratings.mean().item() / 10, abs=1e-6)
    assert head.id.startswith(f"{judge.id} + ")
    assert roles_of(choose(["aesthetic_quality"])) == {"clip", "aesthetic"}


def test_an_aesthetic_head_of_another_clip_is_refused(judge, make_frames, tmp_path):
    save_file({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "large.safetensors")
    head = load_aesthetic(tmp_path / "large.safetensors", judge)
    networks = Networks(flow=load_flow("dis"), clip=judge, aesthetic=head)
    frames = make_frames(2, 0)
    refused, kept = score(
        clip_of(frames, frames), [*choose(["aesthetic_quality"]), *choose(["frame_consistency"])], networks
    )
    assert "reads embeddings of 768 numbers, and those of" in refused.reason
    assert kept.value is not None
    save_file({"weight": torch.zeros(768), "bias": torch.zeros(1)}, tmp_path / "flat.safetensors")
    for file in ("flat", "none"):
        with pytest.raises(UserError, match=rf"{file}\.safetensors.*fatezero convert"):
            load_aesthetic(tmp_path / f"{file}.safetensors", judge)


def test_niqe_reads_its_authors_parameters(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 192, 3), dtype=np.uint8)
    mean, covariance = np.ones((1, 36)), 2 * np.eye(36)
    savemat(tmp_path / "model.mat", {"mu_prisparam": mean, "cov_prisparam": covariance})
    photos = load_photo_statistics(tmp_path / "model.mat")
    found = value_of("niqe", clip_of(frames, frames), niqe=photos)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    expected = niqe_of_frames(pixels, torch.ones(36), torch.from_numpy(covariance))
    assert found == pytest.approx(expected.mean().item(), rel=1e-9)
    savemat(tmp_path / "less.mat", {"mu_prisparam": mean})
    (tmp_path / "text.mat").write_text("no parameters")
    savemat(tmp_path / "nan.mat", {"mu_prisparam": mean, "cov_prisparam": covariance * np.nan})
    for file in ("less", "text", "nan", "none"):
        with pytest.raises(UserError, match=rf"{file}\.mat: not NIQE's parameters"):
            load_photo_statistics(tmp_path / f"{file}.mat")
    small = frames[:, :90]
    (undefined,) = score(clip_of(small, small), choose(["niqe"]), Networks(flow=load_flow("dis"), niqe=photos))
    assert "two textured blocks" in undefined.reason


def test_doctor_says_what_is_lacking(tmp_path):
    lacking = {name.partition("@")[0]: why for name, works, why in runnable_metrics(ScoringOptions(judge="x/y")) if why}
    assert "--dino" in lacking["subject_consistency"]
    assert "--aesthetic" in lacking["aesthetic_quality"]
    for name in ("track_correlation", "dynamic_degree", "motion_smoothness/flow", "warp_error/ff_alpha"):
        assert name not in lacking


def test_tgve_looks_at_squashed_frames(judge, make_frames):
    frames = make_frames(4, 0)
    squashed = np.stack([np.asarray(Image.fromarray(frame).resize((480, 480))) for frame in frames])
    units = judge.images(squashed)["projected"].astype(float)
    clip = clip_of(frames, frames)
    expected = np.mean([a @ b for a, b in combinations(units, 2)])
    assert value_of("frame_consistency/tgve", clip, clip=judge) == pytest.approx(expected, abs=1e-6)
    logits = np.exp(judge.logit_scale) * units @ judge.texts(["an owl"])[0]
    assert value_of("text_alignment/tgve", clip, clip=judge) == pytest.approx(logits.mean(), rel=1e-6)
    assert value_of("pick_score/tgve", clip, pick=judge) == pytest.approx(logits.mean(), rel=1e-6)
    assert value_of("frame_consistency/all_pairs", clip, clip=judge) != pytest.approx(expected, abs=1e-6)


def halves(frames, left):
    """A mask of one half of the frames, as pictures F,H,W,3."""
    mask = np.zeros(frames.shape, np.uint8)
    half = frames.shape[2] // 2
    mask[:, :, slice(0, half) if left else slice(half, None)] = 255
    return mask


def bordered(mask):
    inside = mask[..., 0] > 127
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = True
    return inside


def test_text_alignment_inside_the_mask_sees_black_outside(judge, make_frames):
    frames = make_frames(3, 0)
    mask = halves(frames, left=True)
    zeroed = frames * bordered(mask)[..., None]
    cosines = judge.images(zeroed)["projected"].astype(float) @ judge.texts(["an owl"])[0]
    found = value_of("text_alignment/inside/pie_compat", clip_of(frames, frames, mask), clip=judge)
    assert found == pytest.approx(100 * np.maximum(cosines, 0).mean(), abs=1e-5)


def test_an_unreadable_mask_costs_the_masked_alignment_alone(judge, make_frames):
    frames = make_frames(3, 0)
    clip = replace(clip_of(frames, frames), problems={"mask": "the mask is gone."})
    metrics = choose(["text_alignment", "text_alignment/inside/pie_compat"])
    whole, inside = score(clip, metrics, Networks(flow=load_flow("dis"), clip=judge))
    assert whole.value is not None
    assert inside.reason == "the mask is gone."


def test_pie_masks_each_picture_by_its_own_mask(clips):
    edited, source = (frames[:2] for frames in clips)
    masks = halves(edited, left=True), halves(edited, left=False)
    clip = clip_of(edited, source, mask=masks[0], target_mask=masks[1])
    for place, invert in (("inside", False), ("outside", True)):
        own = [bordered(mask) ^ invert for mask in masks]
        zeroed = source / 255 * own[0][..., None], edited / 255 * own[1][..., None]
        expected = np.square(zeroed[0] - zeroed[1]).mean()
        assert value_of(f"mse/{place}/pie_compat", clip) == pytest.approx(expected, abs=1e-12)
    alike = value_of("mse/inside/pie_compat", replace(clip, target_mask=None))
    assert alike < value_of("mse/inside/pie_compat", clip)
    broken = replace(clip, target_mask=None, problems={"target_mask": "the target's mask is gone."})
    (found,) = score(broken, choose(["mse/inside/pie_compat"]), Networks(flow=load_flow("dis")))
    assert found.reason == "the target's mask is gone."


def test_a_manifest_states_the_targets_mask(tmp_path, make_frames):
    write_frames(tmp_path / "clip", make_frames(2, 0))
    for name in ("mask", "target"):
        write_frames(tmp_path / name, make_frames(2, 1))
    edit = '{"id": "a", "clip": {"path": "clip"}, "source_prompt": "an owl", "target_prompt": "a fox", "truth": '
    (tmp_path / "edits.jsonl").write_text(edit + '{"mask": "mask", "target_mask": "target"}}\n', encoding="utf-8")
    manifest = read_manifest(tmp_path / "edits.jsonl")
    companions = companions_of(manifest.requests[0], manifest.truth["a"])
    assert companions["target_mask"].content.path == str(tmp_path / "target")


def test_rave_averages_in_its_first_frame(clips):
    edited, source = clips
    flow = load_flow("dis")
    values = [structural_similarity(edited[0], edited[0], channel_axis=2)]
    for t in range(FRAMES - 1):
        map_ = flow(source[t], source[t + 1]).transpose(1, 2, 0).copy()
        map_[..., 0] += np.arange(96)
        map_[..., 1] += np.arange(72)[:, None]
        moved = cv2.remap(edited[t], map_, None, cv2.INTER_LINEAR)
        values.append(structural_similarity(edited[t + 1], moved, channel_axis=2))
    assert value_of("warp_ssim/rave", clip_of(edited, source)) == pytest.approx(np.mean(values), abs=1e-9)


def editboard_flows(frames):
    grey = [cv2.cvtColor(frame[..., ::-1].copy(), cv2.COLOR_BGR2GRAY) for frame in frames]
    return [cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0) for a, b in pairwise(grey)]


def test_editboards_fidelity_is_its_own(clips):
    edited, source = clips
    flows, others = editboard_flows(source), editboard_flows(edited)
    rows, columns = np.mgrid[:72, :96].astype(np.float32)
    alphas, shares, betas = [], [], []
    for t, (flow, other) in enumerate(zip(flows, others, strict=True)):
        x, y = columns - flow[..., 0], rows - flow[..., 1]
        warped = [cv2.remap(frames[t], x, y, cv2.INTER_LINEAR).astype(int) for frames in (source, edited)]
        missed = np.abs(source[t + 1] - warped[0]) @ [0.299, 0.587, 0.114]
        keep = np.round(missed) <= 5
        alphas.append(np.abs(edited[t + 1] - warped[1]).max(-1)[keep].mean())
        shares.append(keep.mean())
        cosines = (flow * other).sum(-1) / (np.hypot(*flow.T).T + 1e-7) / (np.hypot(*other.T).T + 1e-7)
        betas.append(1 - cosines.mean())
    assert 0.7 < np.mean(shares) < 1
    clip = clip_of(edited, source)
    assert value_of("warp_error/ff_alpha", clip) == pytest.approx(np.mean(alphas), rel=1e-3)  # rounding of the grey
    assert value_of("motion_fidelity/ff_beta", clip) == pytest.approx(np.mean(betas), abs=1e-6)


def test_ff_alpha_says_nothing_of_a_source_that_cannot_be_followed():
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    for frames in (noise, noise[:1]):
        (found,) = score(clip_of(frames, frames), choose(["warp_error/ff_alpha"]), Networks(flow=load_flow("dis")))
        assert found.value is None
        assert "can be followed" in found.reason


def test_dynamic_degree_counts_over_the_whole_clip():
    """Of 19 frames 5 must move by more than 6 pixels at 256: here by 72 / 256 of that, which is 1.7."""
    still = np.repeat(textured(1, 0), FRAMES, axis=0)
    for moving, expected in ((4, 0), (5, 1)):
        frames = still.copy()
        frames[FRAMES - moving :] = textured(FRAMES, 0, step=4)[1 : moving + 1, :, :96]
        frames[: FRAMES - moving] = textured(FRAMES, 0, step=4)[0]
        assert value_of("dynamic_degree", clip_of(frames, frames)) == expected
    (found,) = score(clip_of(still[:2], still[:2]), choose(["dynamic_degree"]), Networks(flow=load_flow("dis")))
    assert found.reason == "the clip has fewer than three frames"  # of two, VBench says that they move


def test_smoothness_goes_on_across_windows(clips):
    edited, source = clips
    flow = load_flow("dis")
    values = []
    for t in range(1, FRAMES - 1, 2):
        forward, backward = flow(edited[t - 1], edited[t + 1]), flow(edited[t + 1], edited[t - 1])
        rows, columns = np.mgrid[:72, :96].astype(np.float64)
        expected = []
        for frame, half in ((edited[t - 1], (backward - forward) / 4), (edited[t + 1], (forward - backward) / 4)):
            x, y = np.clip(columns + half[0], 0, 95), np.clip(rows + half[1], 0, 71)
            x0, y0 = np.minimum(x.astype(int), 94), np.minimum(y.astype(int), 70)
            dx, dy = (x - x0)[..., None], (y - y0)[..., None]
            top = frame[y0, x0] * (1 - dx) + frame[y0, x0 + 1] * dx
            bottom = frame[y0 + 1, x0] * (1 - dx) + frame[y0 + 1, x0 + 1] * dx
            expected.append(top * (1 - dy) + bottom * dy)
        values.append(1 - np.abs(np.mean(expected, axis=0) - edited[t]).mean() / 255)
    clip = clip_of(edited, source)
    assert value_of("motion_smoothness/flow", clip) == pytest.approx(np.mean(values), abs=1e-6)
    shuffled = edited[np.random.default_rng(0).permutation(FRAMES)]
    assert value_of("motion_smoothness/flow", clip_of(shuffled, source)) < np.mean(values)


def test_points_are_followed_to_where_they_are():
    frames = textured(6, 3)
    clip = TrackedClip(LucasKanade())
    clip.add(frames[:4])
    clip.add(frames[3:])
    tracks = clip.tracks
    steps = np.diff(tracks, axis=1)
    assert len(tracks) > 0.8 * len(first_points(frames[0]))
    np.testing.assert_allclose(np.median(steps, axis=(0, 1)), [-2, 0], atol=0.05)
    inner = tracks[(tracks[:, 0, 0] > 30) & (np.abs(tracks[:, 0, 1] - 36) < 20)]
    np.testing.assert_allclose(np.diff(inner, axis=1), np.broadcast_to([-2, 0], (len(inner), 5, 2)), atol=0.2)


@pytest.mark.slow
def test_tracks_tell_motion_whatever_the_look():
    source = textured(FRAMES, 3)
    recoloured = 255 - source[..., ::-1]
    assert value_of("track_correlation", clip_of(recoloured, source)) == pytest.approx(1, abs=1e-2)
    assert value_of("track_correlation", clip_of(source[::-1], source)) < -0.9
    frozen = np.repeat(source[:1], FRAMES, axis=0)
    assert value_of("track_correlation", clip_of(frozen, source)) == pytest.approx(0, abs=1e-2)
    flat = np.full_like(source, 90)
    (found,) = score(clip_of(flat, source), choose(["track_correlation"]), Networks(flow=load_flow("dis")))
    assert found.value is None
    assert "followed" in found.reason


def test_masked_frames_are_black_outside():
    frames = torch.rand(2, 3, 4, 5)
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[0, 1, 2] = True
    assert fidelity.masked(frames, mask).count_nonzero() == 3
