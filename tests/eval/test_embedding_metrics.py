"""Metrics on embeddings against plain loops over the released formulas, and known answers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from fatezero_eval.metrics import consistency, flickering, motion_fidelity, structure, text


@pytest.fixture
def embeddings():
    """Seven frames, seven source frames and two prompts, as raw (not unit) float32 features."""
    generator = torch.Generator().manual_seed(1)
    offset = torch.randn(16, generator=generator)
    frames = torch.randn(7, 16, generator=generator) + offset
    clip = torch.randn(7, 16, generator=generator) + offset
    prompts = torch.randn(2, 16, generator=generator) + offset
    return frames, clip, prompts


def unit(x):
    x = x.double().numpy()
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def test_text_alignment_is_torchs_cosine_times_100(embeddings):
    frames, _, (_, target) = embeddings
    expected = 100 * cosine_similarity(frames.double(), target.double()[None]).mean()
    value = text.text_alignment(normalize(frames.double(), dim=-1), normalize(target.double(), dim=-1))
    assert value == pytest.approx(expected.item(), abs=1e-9)
    assert 5 < value < 100


def test_frame_accuracy_counts_what_a_softmax_prefers(embeddings):
    frames, _, prompts = embeddings
    logits = 100 * unit(frames) @ unit(prompts).T
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (probabilities[:, 1] >= probabilities[:, 0]).mean()
    assert 0 < expected < 1
    value = text.frame_accuracy(*(normalize(x, dim=-1) for x in (frames, prompts[0], prompts[1])))
    assert value == pytest.approx(expected)
    assert text.frame_accuracy(normalize(frames, dim=-1), prompts[0], prompts[0]) == 1  # a tie is a success


def test_directional_similarity_follows_the_change(embeddings):
    frames, clip, prompts = embeddings
    change = unit(frames) - unit(clip)
    wish = unit(prompts[1]) - unit(prompts[0])
    expected = np.mean([d @ wish / np.sqrt(d @ d) / np.sqrt(wish @ wish) for d in change])
    arguments = [normalize(x.double(), dim=-1) for x in (frames, clip, prompts[0], prompts[1])]
    assert text.directional_similarity(*arguments) == pytest.approx(expected, abs=1e-9)
    source = arguments[1]
    assert text.directional_similarity(source, source, *arguments[2:]).isnan()
    assert text.directional_similarity(arguments[0], source, arguments[2], arguments[2]).isnan()
    half = torch.cat([arguments[0][:3], source[3:]])
    assert text.directional_similarity(half, *arguments[1:]) == pytest.approx(
        text.directional_similarity(arguments[0][:3], source[:3], *arguments[2:]).item()
    )


def test_pick_score_scales_the_cosine(embeddings):
    frames, _, prompts = embeddings
    expected = math.exp(4.6) * (unit(frames) @ unit(prompts[1])).mean()
    value = text.pick_score(
        normalize(frames.double(), dim=-1), normalize(prompts[1].double(), dim=-1), torch.tensor(4.6)
    )
    assert value == pytest.approx(expected, rel=1e-6)


def test_consistencies_agree_with_loops(embeddings):
    frames = embeddings[0]
    f = unit(frames)
    count = len(f)
    unit_frames = normalize(frames.double(), dim=-1)
    expected = np.mean([f[t] @ f[t + 1] for t in range(count - 1)])
    assert consistency.adjacent(unit_frames) == pytest.approx(expected, abs=1e-9)
    expected = np.mean([f[s] @ f[t] for s in range(count) for t in range(s + 1, count)])
    assert consistency.all_pairs(unit_frames) == pytest.approx(expected, abs=1e-9)
    expected = np.mean([(max(0, f[t] @ f[t - 1]) + max(0, f[t] @ f[0])) / 2 for t in range(1, count)])
    assert consistency.vbench(unit_frames) == pytest.approx(expected, abs=1e-9)


def test_consistency_of_a_frozen_a_shuffled_and_a_single_frame():
    angles = torch.linspace(0, 1.2, 8, dtype=torch.float64)
    turning = torch.stack([angles.cos(), angles.sin()], dim=-1)
    shuffled = turning[[3, 0, 6, 1, 7, 2, 5, 4]]
    for function in (consistency.adjacent, consistency.all_pairs, consistency.vbench):
        assert function(turning[:1].expand(5, 2)) == pytest.approx(1, abs=1e-12)
        assert function(turning[:1]).isnan()
    for function in (consistency.adjacent, consistency.vbench):
        assert function(shuffled) < function(turning)


def test_vbench_ignores_opposite_frames_and_the_others_do_not():
    frames = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert consistency.vbench(frames) == 0
    assert consistency.adjacent(frames) == -1


def test_flickering_is_vbenchs_on_eight_bit_frames():
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (5, 9, 11, 3), dtype=np.uint8)
    differences = [np.abs(a.astype(float) - b.astype(float)).mean() for a, b in pairwise(frames)]
    expected = (255 - np.mean(differences)) / 255
    value = flickering.temporal_flickering(torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255)
    assert value == pytest.approx(expected, abs=1e-12)
    assert flickering.temporal_flickering(torch.zeros(1, 3, 4, 4)).isnan()


def test_motion_fidelity_is_the_mean_endpoint_distance():
    source = torch.zeros(2, 2, 4, 5)
    edited = source.clone()
    edited[0, 0], edited[0, 1] = 3, 4
    assert motion_fidelity.motion_fidelity(source, edited) == 2.5
    assert motion_fidelity.motion_fidelity(source[:0], edited[:0]).isnan()


def test_structure_distance_agrees_with_a_loop():
    rng = np.random.default_rng(4)
    source, edited = rng.normal(size=(2, 3, 6, 8))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = []
    for s, e in zip(source, edited, strict=True):
        differences = [(cosine(e[i], e[j]) - cosine(s[i], s[j])) ** 2 for i in range(6) for j in range(6)]
        expected.append(np.mean(differences))
    value = structure.structure_distance(torch.from_numpy(source), torch.from_numpy(edited))
    assert value == pytest.approx(np.mean(expected), abs=1e-12)
    assert structure.structure_distance(torch.from_numpy(source), torch.from_numpy(3 * source)) < 1e-24
