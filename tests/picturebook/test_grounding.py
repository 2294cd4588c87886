from __future__ import annotations

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from fatezero.picturebook.grounding import CrossAttentionMaps, blending_map, grounding_loss, word_columns
from fatezero.picturebook.text_to_image import new_unet
from fatezero.picturebook.world import Scene


def test_word_columns_point_at_the_words() -> None:
    scene = Scene(object="owl", background="night sky", colour="red", style="an oil painting")
    words = ["<start>", *scene.caption.split()]
    assert [words[column] for column in word_columns(scene)] == ["owl", "red", "night", "sky"]
    assert word_columns(Scene(object="owl", background="snow")).tolist() == [2, -1, 5, -1]


def test_blending_map_grows_by_one_cell_and_peaks_at_one() -> None:
    attention = torch.full((1, 8, 8, 1), 0.01)
    attention[0, 4, 5] = 0.2
    grown = blending_map(attention.flatten(1, 2), 8)[0, :, 0].unflatten(0, (8, 8))
    assert torch.allclose(grown[3:6, 4:7], torch.ones(3, 3))
    assert torch.allclose(grown[0], torch.full((8,), 0.05))


def test_loss_is_small_for_grounded_words_and_large_for_stray_ones() -> None:
    coverage = torch.zeros(1, 16, 16)
    coverage[:, 4:12, 4:12] = 1
    inside = torch.zeros(1, 16, 16)
    inside[:, 5:11, 5:11] = 0.5  # one cell smaller all round: the map is grown before it is compared
    outside = torch.full((1, 16, 16), 0.5)
    outside[:, 3:13, 3:13] = 0
    columns = torch.tensor([[1, -1, 2, -1]])
    grounded = torch.stack([torch.zeros_like(inside), inside, outside], dim=-1).flatten(1, 2)
    stray = torch.stack([torch.zeros_like(inside), outside, inside], dim=-1).flatten(1, 2)
    weight = torch.ones(1)
    assert grounding_loss(grounded, columns, coverage.flatten(1), weight) < 0.01
    assert grounding_loss(stray, columns, coverage.flatten(1), weight) > 3


def test_dropped_captions_are_not_grounded() -> None:
    maps = torch.rand(2, 64, 5).softmax(dim=-1).requires_grad_()
    columns = torch.tensor([[1, 2, 3, -1], [-1, -1, -1, -1]])
    grounding_loss(maps, columns, torch.rand(2, 64), torch.ones(2)).backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert maps.grad[0].abs().sum() > 0
    assert (maps.grad[1] == 0).all()


def test_recording_changes_nothing_and_maps_are_shares() -> None:
    torch.manual_seed(0)
    unet = new_unet().eval()
    latents, text = torch.randn(2, 4, 32, 32), torch.randn(2, 7, 128)
    with torch.no_grad():
        plain = unet(latents, 10, text).sample
        recorder = CrossAttentionMaps(unet)
        recorded = unet(latents, 10, text).sample
    crossing = [processor for name, processor in unet.attn_processors.items() if "attn2" in name]
    assert not any(isinstance(processor, AttnProcessor2_0) for processor in crossing)
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-5)
    for side in (16, 8):
        maps = recorder.take(side)
        assert maps.shape == (2, side * side, 7)
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, side * side))
