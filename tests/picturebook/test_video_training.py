"""The trainings of Picturebook-Video: what they learn from, that they resume and export, and that exports load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from fatezero.errors import UserError
from fatezero.picturebook.measure_video import (
    VideoMeasurementConfig,
    frame_change,
    latent_masks,
    measure_video_model,
    unseen_recipes,
)
from fatezero.picturebook.models import clip_pool, latent_pool
from fatezero.picturebook.models.clip_pool import FRAMES, stored_clips
from fatezero.picturebook.models.grounding import word_columns
from fatezero.picturebook.models.latent_pool import LatentPool, LatentsConfig, latent_coverage, shards_in_use
from fatezero.picturebook.models.text_to_video import (
    SHIFT,
    TextToVideoConfig,
    TextToVideoTraining,
    draw_levels,
    train_text_to_video,
)
from fatezero.picturebook.models.tokenizer import grammar_words
from fatezero.picturebook.models.training_attention import PROMPT_TOKENS, watched_attention
from fatezero.picturebook.models.video_autoencoder import (
    VideoAutoencoderConfig,
    VideoAutoencoderTraining,
    decode_unclamped,
    new_video_autoencoder,
    to_clips,
    train_video_autoencoder,
)
from fatezero.picturebook.models.video_latents import VideoEncoder, make_video_latents
from fatezero.picturebook.models.video_networks import new_transformer, read_captions
from fatezero.picturebook.models.video_tokenizer import VIDEO_CONTEXT, new_video_tokenizer
from fatezero.picturebook.world.scenes import BACKGROUNDS, COLOURS, OBJECTS, STYLES, Scene, held_out

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_pool, "CLIPS", 2)
    monkeypatch.setattr(latent_pool, "CLIPS", 2)
    monkeypatch.setattr(latent_pool, "PICTURES", 3)


def caption_tokens(captions: list[str]) -> Tensor:
    return torch.from_numpy(VideoEncoder.tokens(captions))


@pytest.fixture
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = new_video_autoencoder()
    vae.register_to_config(latents_mean=[0.1] * 16, latents_std=[0.5] * 16)
    return vae.eval()


def random_frames(frames: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (1, frames, 32, 32, 3), dtype=np.uint8)


def test_every_word_is_one_token_where_it_stands() -> None:
    tokenizer = new_video_tokenizer()
    text = " ".join(grammar_words())
    read = tokenizer(text, return_offsets_mapping=True)
    words = [text[start:end] for start, end in read.offset_mapping[:-1]]
    assert words == grammar_words()
    assert len(set(read.input_ids)) == len(words) + 1
    assert read.input_ids[-1] == tokenizer.eos_token_id


def test_other_words_are_spelt_in_letters() -> None:
    tokenizer = new_video_tokenizer()
    read = tokenizer("rabbits, Owl 7", return_offsets_mapping=True)
    assert tokenizer.convert_ids_to_tokens(read.input_ids) == [
        *("▁rabbit", "s", ",", "▁", "O", "w", "l", "▁", "7", "</s>")
    ]
    assert read.offset_mapping[1:3] == [(6, 7), (7, 8)]
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]


def test_the_tokenizer_is_found_again_in_its_folder(tmp_path: Path) -> None:
    tokenizer = new_video_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    text = "an oil painting of a golden horse, at sunset"
    assert found(text, return_offsets_mapping=True) == tokenizer(text, return_offsets_mapping=True)
    assert found.pad_token_id == 0


def test_no_caption_is_cut_and_each_has_padding() -> None:
    scenes = [
        Scene(object=thing, background=place, colour=colour, style=style)
        for thing, place, colour, style in product(OBJECTS, BACKGROUNDS, list(COLOURS)[:1], STYLES)
    ]
    tokenizer = new_video_tokenizer()
    tokens = caption_tokens([scene.caption for scene in scenes])
    assert tokens.shape == (len(scenes), VIDEO_CONTEXT)
    assert bool((tokens[:, -1] == tokenizer.pad_token_id).all())
    for scene, row in zip(scenes[::17], tokens[::17], strict=True):
        named = [tokenizer.convert_ids_to_tokens(int(row[column])) for column in word_columns(scene, first=0)[:3]]
        assert named == [f"▁{word}" for word in (scene.object, scene.colour, scene.background.split()[0])]


@pytest.mark.slow
def test_few_tokens_stand_for_all_that_wan_pads_to(vae: AutoencoderKLWan, tmp_path: Path) -> None:
    """Against the stock transformer on the stock pipeline's own 512 embeddings."""
    vae.save_pretrained(tmp_path)
    module = TextToVideoTraining(TextToVideoConfig(output=tmp_path, pool=tmp_path, vae=tmp_path), vae).double()
    transformer = module.transformer
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.05)  # zero at first
    captions = ["a watercolor painting of a purple butterfly under a night sky", "a fox in the snow", ""]
    tokens = caption_tokens(captions)
    latents, timesteps = torch.randn(3, 16, 2, 4, 6).double(), torch.tensor([999.0, 500.0, 10.0]).double()
    processors = dict(transformer.attn_processors)
    with torch.no_grad():
        every = module.pipeline().encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=512)[0]
        expected = transformer(latents, timesteps, every, return_dict=False)[0]
        with watched_attention(transformer, tokens == 0) as maps:
            few = read_captions(module.text_encoder, tokens)
            found = transformer(latents, timesteps, few, return_dict=False)[0]
    assert every.shape[1] == PROMPT_TOKENS
    torch.testing.assert_close(few, every[:, :VIDEO_CONTEXT], rtol=0, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert float(expected.std()) > 0.1
    assert [tuple(weights.shape) for weights in maps] == [(3, 2 * 2 * 3, VIDEO_CONTEXT)] * len(transformer.blocks)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones_like(maps[0][..., 0]))
    assert dict(transformer.attn_processors) == processors


def test_words_are_seen_beside_the_padding_from_the_start() -> None:
    torch.manual_seed(0)
    transformer, tokens = new_transformer(), caption_tokens(["a red jeep on the road"])
    words = 7
    text = torch.cat([torch.randn(1, words, 128), torch.zeros(1, VIDEO_CONTEXT - words, 128)], dim=1)
    with torch.no_grad(), watched_attention(transformer, tokens == 0) as maps:
        transformer(torch.randn(1, 16, 1, 8, 8), torch.tensor([900.0]), text)
    share = float(torch.stack(maps)[..., :words].sum(-1).mean())
    assert share > 5 * words / PROMPT_TOKENS


def test_noise_levels_are_spread_as_the_sampler_takes_them() -> None:
    levels = draw_levels(1000, torch.Generator().manual_seed(0))
    even = levels / (SHIFT - (SHIFT - 1) * levels)  # the shift taken back
    assert bool(((even * 1000).floor() == torch.arange(1000)).all())
    assert float(levels.median()) == pytest.approx(0.75, abs=0.01)
    assert 0 <= float(levels.min()) < float(levels.max()) < 1


def test_a_latent_frame_is_covered_as_its_frames_are(vae: AutoencoderKLWan) -> None:
    """Coverage is averaged over just those frames that a latent frame is the first to see."""
    coverage = np.zeros((9, 1, 1), np.uint8)
    coverage[0], coverage[4], coverage[5:9] = 7, 200, 100
    assert latent_coverage(coverage)[:, 0, 0].tolist() == [7, 50, 100]
    frames = random_frames(9)
    before = VideoEncoder(vae).latents(frames)
    for changed, latent in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        other = frames.copy()
        other[:, changed] = 255 - other[:, changed]
        moved = (VideoEncoder(vae).latents(other) - before).abs().amax((0, 1, 3, 4)) > 1e-4
        assert int(moved.int().argmax()) == latent


def test_unclamped_decoding_is_the_autoencoders_own(vae: AutoencoderKLWan) -> None:
    latents = 20 * torch.randn(2, 16, 3, 4, 4)
    with torch.no_grad():
        pixels = decode_unclamped(vae, latents)
        torch.testing.assert_close(pixels.clamp(-1, 1), vae.decode(latents).sample)
    assert pixels.shape == (2, 3, 9, 32, 32)
    assert float(pixels.abs().max()) > 1


@pytest.mark.slow
def test_latents_are_made_once_for_each_encoder(vae: AutoencoderKLWan, tmp_path: Path) -> None:
    vae.half().save_pretrained(tmp_path / "vae")
    config = LatentsConfig(vae=tmp_path / "vae", pool=tmp_path / "pool", shards=1)
    folder = make_video_latents(config)
    pool = LatentPool(VideoEncoder(vae.float()), config.pool, 1)
    clips, pictures = pool.clips(0), pool.pictures(0)
    assert (clips.latents.dtype, clips.latents.shape) == (np.float16, (2, 16, 5, 16, 16))
    assert (clips.coverage.shape, pictures.latents.shape) == ((2, 5, 16, 16), (3, 16, 1, 16, 16))
    recipe = clip_pool.draw_recipe(1, 1)
    assert not held_out(recipe.scene)
    frames = clip_pool.render_clip(recipe).frames
    expected = pool.encoder.latents(frames[None])[0].numpy()
    np.testing.assert_allclose(clips.latents[1], expected, rtol=1e-2, atol=1e-2)
    assert clips.tokens[1].tolist() == caption_tokens([recipe.scene.caption])[0].tolist()
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    make_video_latents(config)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")} == made
    digest = VideoEncoder(vae).digest
    torch.nn.init.zeros_(vae.decoder.conv_out.weight)
    assert VideoEncoder(vae).digest == digest
    torch.nn.init.zeros_(vae.encoder.conv_out.weight)
    assert VideoEncoder(vae).digest != digest


def test_processes_make_latents_together(
    vae: AutoencoderKLWan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another is making is left to it, and waited for at the end."""
    made = LatentPool(VideoEncoder(vae), tmp_path / "made", 1)
    first = made.pictures(0)
    pool = LatentPool(VideoEncoder(vae), tmp_path / "pool", 1)
    pool.shards.mkdir(parents=True)

    @contextmanager
    def lets_go(lock: Path) -> Iterator[None]:
        if lock.name == ".pictures-1-000.lock":
            (made.shards / "pictures-1-000").rename(lock.parent / "pictures-1-000")
        yield

    monkeypatch.setattr(latent_pool, "locked", lets_go)
    monkeypatch.setattr(latent_pool, "is_held", lambda lock: lock.name == ".pictures-1-000.lock")
    pool.make_ahead(("pictures",), 3)
    assert [path.name for path in pool.opened] == [f"pictures-1-00{number}" for number in (1, 2, 0)]
    np.testing.assert_array_equal(pool.pictures(0).latents, first.latents)
    assert not np.array_equal(pool.pictures(1).latents, first.latents)


def test_latents_need_an_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no autoencoder; train one with `fatezero train video-autoencoder`"):
        make_video_latents(LatentsConfig(vae=tmp_path, pool=tmp_path))


@pytest.mark.parametrize("change", [{"pictures": 3}, {"batch": 3}])
def test_scenes_of_a_step_are_shared_equally(tmp_path: Path, change: dict[str, int]) -> None:
    (name,) = change
    with pytest.raises(UserError, match=f"processes is 2: a step's {name} of 3 cannot be shared equally"):
        TextToVideoConfig(output=tmp_path, pool=tmp_path, vae=tmp_path, processes=2, **change)


@pytest.mark.parametrize("change", [{"steps": 0}, {"pictures": 0}])
def test_impossible_trainings_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(UserError, match="is 0: it is at least 1"):
        TextToVideoConfig(output=tmp_path, pool=tmp_path, vae=tmp_path, **change)


def test_a_cpu_trains_the_autoencoder_in_float32_alone(tmp_path: Path) -> None:
    config = VideoAutoencoderConfig(output=tmp_path, pool=tmp_path)
    with VideoAutoencoderTraining(config, []).autocast():
        assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(UserError, match="bf16: a CPU trains the video autoencoder in float32 alone; leave this out"):
        replace(config, bf16=True)
    assert replace(config, bf16=True, accelerator="gpu").bf16


@pytest.mark.slow
def test_the_autoencoder_learns_and_exports_its_statistics(tmp_path: Path) -> None:
    config = VideoAutoencoderConfig(
        output=tmp_path / "out", pool=tmp_path / "pool", shards=1, steps=1, batch=1, warmup=1, sample_every=1
    )
    folder = train_video_autoencoder(config)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float16 for value in weights.values())
    assert Image.open(config.output / "samples" / "0000001.png").size == (5 * 128, 4 * 128)
    vae = AutoencoderKLWan.from_pretrained(folder, dtype=torch.float32)
    clips = stored_clips(config.pool, config.series, 0)
    assert clips.frames.shape == (2, FRAMES, 128, 128, 3)
    latents = VideoEncoder(vae).latents(clips.frames)
    assert latents.shape == (2, 16, 5, 16, 16)
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(16), rtol=0, atol=0.05)
    torch.testing.assert_close(latents.std((0, 2, 3, 4)), torch.ones(16), rtol=0, atol=0.05)
    decoder = train_video_autoencoder(
        replace(config, output=tmp_path / "more", init_from=folder, decoder_only=True, steps=1)
    )
    trained = AutoencoderKLWan.from_pretrained(decoder, dtype=torch.float32)
    assert VideoEncoder(trained).digest == VideoEncoder(vae).digest
    with torch.no_grad():
        assert not torch.equal(trained.decode(latents).sample, vae.decode(latents).sample)
    assert to_clips(clips.frames).shape == (2, 3, FRAMES, 128, 128)


def video_config(folder: Path, vae: AutoencoderKLWan) -> TextToVideoConfig:
    vae.save_pretrained(folder / "vae")
    return TextToVideoConfig(
        output=folder / "out", pool=folder / "pool", vae=folder / "vae", shards=1, steps=3, batch=1, pictures=1,
        warmup=1, sample_every=100,
    )  # fmt: skip


def test_processes_share_the_clips_of_one(
    vae: AutoencoderKLWan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two processes learn from is, on average, what one learns from."""
    config = replace(video_config(tmp_path, vae), batch=2, pictures=4, processes=2)
    module = TextToVideoTraining(config, vae)

    def flow(share: slice) -> Tensor:
        monkeypatch.setattr(TextToVideoTraining, "share", share)
        clips = module.draw(module.rng(), module.pool.clips, 2, 2)
        pictures = module.draw(module.rng(), module.pool.pictures, 4, 1)
        with torch.no_grad():
            return torch.stack(
                [module.losses(clips, 2, module.generator()), module.losses(pictures, 4, module.generator())]
            )[:, 0]

    alone, first, second = (flow(share) for share in (slice(None), slice(0, None, 2), slice(1, None, 2)))
    torch.testing.assert_close((first + second) / 2, alone)
    assert not torch.equal(first, second)
    clips = VideoAutoencoderTraining(
        VideoAutoencoderConfig(output=tmp_path, pool=tmp_path, batch=4, processes=2), [stored_clips(tmp_path, 1, 0)]
    )
    drawn = []
    for share in (slice(None), slice(0, None, 2), slice(1, None, 2)):
        monkeypatch.setattr(VideoAutoencoderTraining, "share", share)
        drawn.append(clips.draw())
    np.testing.assert_array_equal(np.stack(drawn[1:], axis=1).reshape(drawn[0].shape), drawn[0])


def test_the_pool_grows_with_the_steps() -> None:
    assert [shards_in_use(10, step, 1000) for step in (0, 499, 799, 999, 1500)] == [4, 5, 8, 10, 10]


@pytest.mark.slow
def test_a_training_in_pieces_is_the_training_in_one(vae: AutoencoderKLWan, tmp_path: Path) -> None:
    config = video_config(tmp_path, vae)
    whole = train_text_to_video(config)
    for _ in range(config.steps):
        pieces = train_text_to_video(replace(config, output=tmp_path / "pieces", minutes=0))
    for part in ("transformer", "text_encoder"):
        one, other = (load_file(next((folder / part).glob("*.safetensors"))) for folder in (whole, pieces))
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(value.dtype == torch.float16 for value in one.values())
    pipeline = WanPipeline.from_pretrained(whole, dtype=torch.float32)
    assert pipeline.scheduler.config.shift == SHIFT
    made = pipeline("a fox in the snow", height=128, width=128, num_frames=9, num_inference_steps=1)
    assert made.frames.shape == (1, 9, 128, 128, 3)
    assert sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) < 30e6
    measured = measure_video_model(
        VideoMeasurementConfig(output=tmp_path / "report", checkpoint=whole, clips=2, inverted=1, samples=2, steps=1)
    )
    assert "text-to-video, held-out" in measured.read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["numbers"]
    assert all(0 <= value <= 1 for value in numbers["grounding"].values())
    assert numbers["inversion"].keys() == {"autoencoder's PSNR", "PSNR, solver order 1", "PSNR, solver order 2"}
    assert Image.open(tmp_path / "report" / "samples-seen.png").size == (9 * 128, 2 * 128)


def test_latent_masks_show_what_most_of_their_frames_show() -> None:
    masks = np.zeros((9, 1, 2), np.bool_)
    masks[0, :, 0] = masks[2:5, :, 0] = masks[5:7, :, 1] = True
    assert latent_masks(masks)[:, 0].tolist() == [[True, False], [True, False], [False, False]]


def test_measured_clips_are_held_out_or_not() -> None:
    for rare in (False, True):
        recipes = unseen_recipes(6, rare=rare)
        assert [held_out(recipe.scene) for recipe in recipes] == [rare] * 6
        assert recipes == unseen_recipes(7, rare=rare)[:6]


def test_frame_change_counts_grey_levels() -> None:
    frames = np.zeros((1, 3, 4, 4, 3), np.uint8)
    frames[:, 1] = 200
    assert frame_change(frames) == 200


def test_a_report_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no text-to-video model"):
        VideoMeasurementConfig(output=tmp_path, checkpoint=tmp_path)
