from __future__ import annotations

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from fatezero.attention.install import video_attention
from fatezero.attention.processor import Call
from fatezero.attention.recorders import CrossMapAverage
from fatezero.attention.sites import attention_sites
from fatezero.picturebook.models.grounding import grounding_loss, word_columns
from fatezero.picturebook.models.text_to_image import new_unet
from fatezero.picturebook.models.tokenizer import CONTEXT
from fatezero.picturebook.models.training_attention import watched_words
from fatezero.picturebook.world.scenes import Scene


def test_word_columns_point_at_the_words() -> None:
    scene = Scene(object="owl", background="night sky", colour="red", style="an oil painting")
    words = ["<start>", *scene.caption.split()]
    assert [words[column] for column in word_columns(scene)] == ["owl", "red", "night", "sky"]
    assert word_columns(Scene(object="owl", background="snow")).tolist() == [2, -1, 5, -1]


def test_loss_is_small_for_grounded_words_and_large_for_stray_ones() -> None:
    coverage = torch.zeros(1, 16, 16)
    coverage[:, 4:12, 4:12] = 1
    inside = torch.zeros(1, 16, 16)
    inside[:, 5:11, 5:11] = 0.5  # one cell smaller all round: the map is grown before it is compared
    outside = torch.full((1, 16, 16), 0.5)
    outside[:, 3:13, 3:13] = 0
    columns = torch.tensor([[1, -1, 2, -1]])
    grounded = torch.stack([torch.zeros_like(inside), inside, outside], dim=-1)
    stray = torch.stack([torch.zeros_like(inside), outside, inside], dim=-1)
    weight = torch.ones(1)
    assert grounding_loss(grounded, columns, coverage, weight) < 0.01
    assert grounding_loss(stray, columns, coverage, weight) > 3


def test_dropped_captions_are_not_grounded() -> None:
    maps = torch.rand(2, 8, 8, 5).softmax(dim=-1).requires_grad_()
    columns = torch.tensor([[1, 2, 3, -1], [-1, -1, -1, -1]])
    grounding_loss(maps, columns, torch.rand(2, 8, 8), torch.ones(2)).backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert maps.grad[0].abs().sum() > 0
    assert (maps.grad[1] == 0).all()


def test_watching_changes_nothing_and_maps_are_the_editors() -> None:
    torch.manual_seed(0)
    unet = new_unet().eval()
    latents, text = torch.randn(2, 4, 32, 32), torch.randn(2, CONTEXT, 128)
    sites = attention_sites(unet)
    with torch.no_grad():
        plain = unet(latents, 10, text).sample
        with watched_words(unet) as maps:
            watched = unet(latents, 10, text).sample
        assert all(isinstance(processor, AttnProcessor2_0) for processor in unet.attn_processors.values())
        for side in (16, 8):
            names = [site.name for site in sites if site.kind == "cross" and site.downsampling * side == 32]
            average = CrossMapAverage(names, CONTEXT)
            with video_attention(unet, sites, "frame") as state:
                state.call = Call(branches=1, frames=2, latent_size=(32, 32), recorders=[average])
                unet(latents, 10, text)
            seen = torch.stack(maps[side**2]).mean(0).unflatten(1, (side, side))
            torch.testing.assert_close(seen, average.mean((side, side)), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(seen.sum(dim=-1), torch.ones(2, side, side))
    torch.testing.assert_close(watched, plain, rtol=1e-4, atol=1e-5)
