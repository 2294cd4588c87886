"""Key frames, chunks, fusion and masks: known answers and materialised maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fatezero.attention.fusion import (
    CrossMix,
    Probabilities,
    QueriesAndKeys,
    fuse_cross_attention,
    fuse_self_attention,
    probabilities,
)
from fatezero.attention.key_frames import Chunk, cut_into_chunks, gather_key_frames, key_frame_indices, key_positions
from fatezero.blending.blend import blend_latents
from fatezero.blending.mask import WordMask, word_attention
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError


@pytest.mark.parametrize(
    ("key_frames", "frame", "length", "expected"),
    [
        (("self", "middle"), 2, 8, [2, 3]),
        (("middle",), 0, 16, [7]),
        (("middle", "last"), 1, 5, [2, 4]),
        ((-1, "first"), 0, 4, [0, 0]),
        ((-1, "first"), 3, 4, [2, 0]),
        ((1, -2), 3, 4, [3, 1]),
    ],
)
def test_key_frames(key_frames: Any, frame: int, length: int, expected: list[int]) -> None:
    assert key_frame_indices(key_frames, frame, length) == expected


def test_own_frame_alone_needs_no_gathering() -> None:
    whole = cut_into_chunks(4, (), "frame", None)[0]
    assert key_positions((), whole, 4) is None
    assert key_positions(("self",), whole, 4) is None


def test_chunks_carry_the_anchors() -> None:
    assert cut_into_chunks(7, ("self", "middle", "last"), "frame", 3) == (
        Chunk((0, 1, 2, 3, 6), (0, 1, 2)),
        Chunk((3, 4, 5, 6), (0, 1, 2)),
        Chunk((3, 6), (1,)),
    )
    assert len(cut_into_chunks(40, ("self", "middle"), "frame", None)) == 3  # of 16 by default
    assert len(cut_into_chunks(40, ("self", "middle"), "clip", None)) == 1


@pytest.mark.parametrize(("key_frames", "scope", "reason"), [(("self",), "clip", "norm_scope"), ((-1,), "frame", "-1")])
def test_tied_frames_are_not_cut(key_frames: Any, scope: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        cut_into_chunks(8, key_frames, scope, 4)
    assert len(cut_into_chunks(8, key_frames, scope, 8)) == 1


def test_spread_lays_key_frames_side_by_side() -> None:
    keys = torch.arange(2 * 3 * 2 * 1 * 1.0).view(6, 2, 1, 1)  # two branches of three frames, two tokens each
    positions = torch.tensor([[0, 1], [1, 1], [2, 1]])
    rows = gather_key_frames(keys, positions)[:, :, 0, 0]
    assert rows.tolist()[:3] == [[0, 1, 2, 3], [2, 3, 2, 3], [4, 5, 2, 3]]
    assert rows.tolist()[3:] == [[6, 7, 8, 9], [8, 9, 8, 9], [10, 11, 8, 9]]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def applied(maps_FHQK: torch.Tensor, values_FKHD: torch.Tensor) -> torch.Tensor:
    """Maps times values, F,Q,H,D."""
    return torch.einsum("fhqk,fkhd->fqhd", maps_FHQK, values_FKHD)


def test_self_attention_without_maps_equals_blended_maps() -> None:
    edited, source = (QueriesAndKeys(draw(2, 5, 3, 4, seed=s), draw(2, 7, 3, 4, seed=s + 1)) for s in (0, 2))
    values, mask = draw(2, 7, 3, 4, seed=4), torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 1, 1]])
    own, theirs = probabilities(edited.queries, edited.keys), probabilities(source.queries, source.keys)
    rows = mask[:, None, :, None]
    expected = applied(rows * own + (1 - rows) * theirs, values)
    torch.testing.assert_close(fuse_self_attention(edited, source, values, mask.bool()), expected)
    fused = fuse_self_attention(None, Probabilities(theirs), values, None)
    torch.testing.assert_close(fused, applied(theirs, values))


def test_cross_attention_without_maps_equals_mixed_maps() -> None:
    edited = QueriesAndKeys(draw(2, 5, 3, 4), draw(2, 6, 3, 4, seed=1))
    source = QueriesAndKeys(draw(2, 5, 3, 4, seed=2), draw(2, 6, 3, 4, seed=3))
    values, from_source, own = draw(2, 6, 3, 4, seed=4), draw(6, 6, seed=5), draw(6, seed=6)
    maps = probabilities(source.queries, source.keys) @ from_source + probabilities(edited.queries, edited.keys) * own
    mixed = fuse_cross_attention(edited, source, values, CrossMix(from_source, own))
    torch.testing.assert_close(mixed, applied(maps, values))


def test_frames_of_one_prompt_share_its_keys() -> None:
    """Four frames of two prompts, each prompt once: as if every frame had its own copy."""
    queries, keys, values = draw(4, 5, 3, 4), draw(2, 6, 3, 4, seed=1), draw(2, 6, 3, 4, seed=2)
    copied = [one.repeat_interleave(2, 0) for one in (keys, values)]
    expected = applied(probabilities(queries, copied[0]), copied[1])
    torch.testing.assert_close(QueriesAndKeys(queries, keys).apply(values), expected)
    alone = applied(probabilities(queries, keys[:1]), values[:1].expand(4, -1, -1, -1))
    torch.testing.assert_close(Probabilities(probabilities(queries, keys[:1])).apply(values[:1]), alone)


def test_a_mask_by_hand() -> None:
    """One bright cell in a 3 x 5 map grows by one cell, and keeps the clip's shape when enlarged."""
    attention = torch.full((1, 3, 5), 0.1)
    attention[0, 1, 1] = 0.8
    mask = WordMask(attention, threshold=0.3)
    assert mask.hard((3, 5))[0].int().tolist() == [[1, 1, 1, 0, 0]] * 3
    assert mask.hard((6, 10))[0].int().tolist() == [[1] * 6 + [0] * 4] * 6
    assert mask.soft((3, 5)).max() == 1


def test_each_frame_has_its_own_maximum() -> None:
    attention = torch.zeros(2, 4, 4)
    attention[0, 0, 0], attention[1, 3, 3] = 1.0, 0.01
    assert WordMask(attention, 0.3).hard((4, 4)).sum((1, 2)).tolist() == [4, 4]


def test_word_attention_sums_tokens() -> None:
    maps = torch.arange(8.0).view(1, 1, 2, 4)
    assert word_attention(maps, (1, 3)).flatten().tolist() == [4, 12]


def test_latents_are_the_sources_outside_the_mask() -> None:
    edited, source, mask = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.tensor([[[True, False]] * 2])
    assert blend_latents(edited, source, mask)[0, 0].tolist() == [[1, 0]] * 2


def test_sites_of_stable_diffusions_topology(backbone32: UNetBackbone) -> None:
    sites = backbone32.sites
    assert len(sites) == 32
    by_block = [(s.part, s.downsampling) for s in sites if s.kind == "self"]
    down = [("down", 1)] * 2 + [("down", 2)] * 2 + [("down", 4)] * 2
    assert by_block == down + [("mid", 8)] + [("up", 4)] * 3 + [("up", 2)] * 3 + [("up", 1)] * 3
    assert sites[0].size(40, 64) == (40, 64)
    assert next(s for s in sites if s.part == "mid").size(40, 60) == (5, 8)
