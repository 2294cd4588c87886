"""Checkpoints of diffusion transformers: each loads as diffusers loads it, or a sentence says why not."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import UMT5EncoderModel

from fatezero.config import ModelOptions
from fatezero.diffusion.checkpoint import find_checkpoint, native_frames, native_size, trained_on, vae_folder
from fatezero.diffusion.components import check_description
from fatezero.diffusion.description import describe
from fatezero.diffusion.hub import wanted_files
from fatezero.diffusion.layouts import FAMILY_OF, STEMS
from fatezero.diffusion.matching_parts import check_transformer_parts
from fatezero.diffusion.pipeline_loading import load_pipeline
from fatezero.diffusion.recommendations import recommended_method
from fatezero.diffusion.text_parts import TEXT_ENCODERS, text_config
from fatezero.diffusion.vetting import check_depth, vet_checkpoint
from fatezero.errors import UserError
from tests.integration.sdxl_checkpoints import change
from tests.integration.test_vetting import ODD, places, replaced
from tests.tiny_pipelines import (
    clip_tokenizer,
    flow_euler,
    flow_unipc,
    saved,
    t5_tokenizer,
    tiny_cogvideox,
    tiny_flux,
    tiny_hunyuan_video,
    tiny_ltx,
    tiny_stable_diffusion_3,
    tiny_wan,
    tiny_wan_in_two_stages,
    tiny_wan_of_patches,
)

TEXT = "a silver jeep driving, Porsche 911 Ü"
MAKERS = (
    *(tiny_wan, tiny_wan_in_two_stages, tiny_wan_of_patches, tiny_ltx, tiny_cogvideox, tiny_hunyuan_video),
    *(tiny_stable_diffusion_3, tiny_flux),
)


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny pipeline, not to be changed."""
    return saved(request.param(), tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_wan(), tmp_path_factory.mktemp("wan"))


@pytest.fixture
def model(wan: Path, tmp_path: Path) -> Path:
    """A copy of Wan's folder."""
    return Path(shutil.copytree(wan, tmp_path / "model"))


def found(folder: Path, **networks: Any) -> Path:
    return find_checkpoint(ModelOptions(model=str(folder), **networks)).folder


def loaded(folder: Path, dtype: torch.dtype = torch.float32, **how: Any) -> Any:
    pipeline = load_pipeline(found(folder), dtype, **how)
    check_transformer_parts(FAMILY_OF[type(pipeline).__name__], pipeline.components, str(folder))
    native_size(folder)
    native_frames(folder)
    return pipeline


def networks_of(pipeline: Any) -> dict[str, Any]:
    return {part: one for part, one in pipeline.components.items() if isinstance(one, torch.nn.Module)}


def test_every_part_is_what_diffusers_loads(original: Path) -> None:
    theirs, ours = DiffusionPipeline.from_pretrained(original), loaded(original)
    assert type(ours) is type(theirs)
    assert networks_of(ours).keys() == networks_of(theirs).keys()
    for part, network in networks_of(theirs).items():
        own = networks_of(ours)[part]
        assert type(own) is type(network)
        assert not own.training
        assert own.state_dict().keys() == network.state_dict().keys()
        assert all(torch.equal(value, own.state_dict()[name]) for name, value in network.state_dict().items())
    assert type(ours.scheduler) is type(theirs.scheduler)
    assert dict(ours.scheduler.config) == dict(theirs.scheduler.config)
    for setting in ("boundary_ratio", "expand_timesteps"):
        assert ours.config.get(setting) == theirs.config.get(setting)
    for part in vet_checkpoint(original).tokenizers:
        assert ours.components[part](TEXT).input_ids == theirs.components[part](TEXT).input_ids


@pytest.mark.slow
@pytest.mark.parametrize("maker", [tiny_wan, tiny_flux])
def test_what_is_kept_in_float32(maker: Callable[[], Any], tmp_path: Path) -> None:
    """Autoencoders, T5's last layers in float16, norms and timesteps of Wan; beside float64 nothing is."""
    saved(maker(), tmp_path)
    half = networks_of(loaded(tmp_path, torch.float16))
    assert {value.dtype for value in half["vae"].parameters()} == {torch.float32}
    for part, network in half.items():
        kept = {name for name, value in network.named_parameters() if value.dtype == torch.float32}
        wanted = network._keep_in_fp32_modules or ()
        assert part == "vae" or kept == {
            name for name, _ in network.named_parameters() if set(name.split(".")) & {*wanted}
        }
    bfloat16 = networks_of(loaded(tmp_path, torch.bfloat16))
    assert {value.dtype for value in bfloat16["vae"].parameters()} == {torch.float32}
    assert {value.dtype for value in bfloat16["text_encoder"].parameters()} == {torch.bfloat16}
    double = networks_of(loaded(tmp_path, torch.float64))
    assert {value.dtype for network in double.values() for value in network.parameters()} == {torch.float64}


def test_a_pipeline_of_the_folder_runs_as_diffusers_own(wan: Path) -> None:
    def run(pipeline: Any) -> Any:
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return pipeline(
            "a jeep", height=32, width=32, num_frames=5, num_inference_steps=2, generator=generator, output_type="pt"
        ).frames  # fmt: skip

    assert torch.equal(run(DiffusionPipeline.from_pretrained(wan)), run(loaded(wan)))


@pytest.mark.parametrize("maker", [lambda: tiny_stable_diffusion_3(t5=False), lambda: tiny_flux(guidance=False)])
def test_parts_that_a_family_may_lack(maker: Callable[[], Any], tmp_path: Path) -> None:
    pipeline = loaded(saved(maker(), tmp_path))
    assert getattr(pipeline, "text_encoder_3", None) is None


@pytest.mark.parametrize(
    ("maker", "pipeline"),
    [
        (tiny_ltx, "LTXConditionPipeline"),
        (tiny_flux, "FluxImg2ImgPipeline"),
        (tiny_stable_diffusion_3, "StableDiffusion3Img2ImgPipeline"),
        (tiny_cogvideox, "CogVideoXVideoToVideoPipeline"),
    ],
)
def test_pipelines_of_the_same_parts_load(maker: Callable[[], Any], pipeline: str, tmp_path: Path) -> None:
    made = maker()
    change(saved(made, tmp_path) / "model_index.json", _class_name=pipeline)
    assert type(loaded(tmp_path)) is type(made)


# Tokenizers


def test_llama_3s_tokens_are_its_files_own(tmp_path: Path) -> None:
    """Under the name that HunyuanVideo's folder gives; the class of that name would split words otherwise."""
    saved(tiny_hunyuan_video(), tmp_path)
    index = tmp_path / "model_index.json"
    change(index, tokenizer=["transformers", "LlamaTokenizerFast"])
    tokenizer = loaded(tmp_path).tokenizer
    expected = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json")).encode(TEXT)
    read = tokenizer(TEXT, return_offsets_mapping=True)
    assert read.input_ids == expected.ids
    assert read.offset_mapping == expected.offsets


def test_an_unknown_sign_is_the_files_own_unknown_token(model: Path) -> None:
    """UMT5's is its fourth, T5's its third, whatever the class is named."""
    file = model / "tokenizer" / "tokenizer.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = written["model"]["vocab"]
    vocabulary.insert(2, ["<s>", 0.0])
    written["model"]["unk_id"] = 3
    written["added_tokens"] = [one for one in written["added_tokens"] if one["id"] < 2]
    file.write_text(json.dumps(written), encoding="utf-8")
    encoder = UMT5EncoderModel.from_pretrained(model / "text_encoder")
    encoder.resize_token_embeddings(len(vocabulary))
    encoder.save_pretrained(model / "text_encoder")
    assert loaded(model).tokenizer("Ü").input_ids == [vocabulary.index(["▁", -4.0]), 3, 1]


def test_a_sentencepiece_model_is_read_or_says_what_reads_it(model: Path) -> None:
    """As CogVideoX and LTX-Video were published: without tokenizer.json."""
    (model / "tokenizer" / "tokenizer.json").unlink()
    if find_spec("sentencepiece") is None:
        with pytest.raises(UserError, match="pip install sentencepiece protobuf"):
            loaded(model)
        return
    import sentencepiece  # noqa: PLC0415

    words = model / "words.txt"
    words.write_text("\n".join(["a silver jeep driving down the road", "a red cat on the snow"] * 20), encoding="utf-8")
    spm = model / "tokenizer" / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        input=str(words),
        model_prefix=str(spm),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    config = model / "tokenizer" / "tokenizer_config.json"
    change(config, extra_ids=0)
    expected = sentencepiece.SentencePieceProcessor(model_file=f"{spm}.model").encode("a red jeep")
    assert loaded(model).tokenizer("a red jeep").input_ids == [*expected, 1]


def test_tokens_that_the_text_encoder_does_not_know(model: Path) -> None:
    tokenizer = t5_tokenizer()
    tokenizer.add_tokens(["xyz"])
    tokenizer.save_pretrained(model / "tokenizer")
    with pytest.raises(UserError, match="has a token 128, the text encoder knows 128"):
        loaded(model)


# What is refused before any weights are read


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("model_index.json", {"_class_name": "WanImageToVideoPipeline"}, "makes a video of an image"),
        ("model_index.json", {"_class_name": "WanVACEPipeline"}, "led by other videos"),
        ("model_index.json", {"_class_name": "MochiPipeline"}, "not one of a checkpoint that FateZero edits with"),
        ("model_index.json", {"_class_name": "LTXPipeline"}, "it is diffusers's FlowMatchEulerDiscreteScheduler"),
        ("model_index.json", {"image_encoder": ["transformers", "CLIPVisionModel"]}, "Wan has no such part"),
        ("model_index.json", {"transformer": ["evil", "WanTransformer3DModel"]}, "'transformer'"),
        ("model_index.json", {"transformer": ["diffusers", "UNet2DConditionModel"]}, "'transformer'"),
        ("model_index.json", {"transformer": [None, None]}, "'transformer'"),
        ("model_index.json", {"text_encoder": ["transformers", "os.system"]}, "'text_encoder'"),
        ("model_index.json", {"tokenizer": ["transformers", "AutoTokenizer"]}, "'tokenizer'"),
        ("model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "'scheduler'"),
        ("model_index.json", {"boundary_ratio": 0.875}, "a model of two stages has both"),
        ("model_index.json", {"boundary_ratio": 2.0}, "share of the noise levels"),
        ("model_index.json", {"expand_timesteps": "yes"}, "it is true or false"),
        ("model_index.json", {"custom_pipeline": "pipe"}, "would run code"),
        ("transformer/config.json", {"_class_name": "evil.Model"}, "of the class"),
        ("transformer/config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "would run code"),
        ("transformer/config.json", {"num_layers": 30}, "at most 3 layers of a kind"),
        ("text_encoder/config.json", {"num_layers": 10**9}, "layers of a kind"),
        ("text_encoder/config.json", {"architectures": ["EvilModel"]}, "of the class"),
        ("text_encoder/config.json", {"quantization_config": {"quant_method": "evil"}}, "would run code"),
        ("text_encoder/config.json", {"_attn_implementation": "evil/kernel"}, "would run code"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}}, "would run code"),
        ("scheduler/scheduler_config.json", {"_class_name": "evil.Scheduler"}, "of the class"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "the same in both"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "predicts a flow"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": False}, "use_flow_sigmas is False"),
        ("scheduler/scheduler_config.json", {"flow_shift": 0}, "flow_shift is 0"),
        ("scheduler/scheduler_config.json", {"flow_shift": "3"}, "flow_shift is '3'"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "placed by its shift"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "no inversion undoes"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**10}, "noise levels"),
    ],
)
def test_foreign_words_are_refused(model: Path, file: str, values: dict[str, Any], sentence: str) -> None:
    change(model / file, **values)
    with pytest.raises(UserError, match=sentence):
        found(model)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"stochastic_sampling": True}, "adds noise at each step"),
        ({"invert_sigmas": True}, "from clean to noisy"),
        ({"use_dynamic_shifting": True}, "which diffusers' WanPipeline does not do"),
        ({"shift_terminal": 2}, "shift_terminal is 2"),
        ({"time_shift_type": "cubic"}, "exponential or linear"),
        ({"use_dynamic_shifting": True, "max_shift": "x"}, "max_shift is 'x'"),
        ({"use_dynamic_shifting": True, "base_image_seq_len": 5000}, "below max_image_seq_len"),
    ],
)
def test_flows_that_no_inversion_undoes(tmp_path: Path, values: dict[str, Any], sentence: str) -> None:
    saved(tiny_wan(scheduler=flow_euler()), tmp_path)
    found(tmp_path)
    change(tmp_path / "scheduler" / "scheduler_config.json", **values)
    with pytest.raises(UserError, match=sentence):
        found(tmp_path)


@pytest.mark.parametrize("values", [{"num_train_timesteps": 0}, {"num_train_timesteps": -5}, {"shift": 1e-30}])
def test_a_flow_falls_to_no_noise(tmp_path: Path, values: dict[str, Any]) -> None:
    saved(tiny_wan(scheduler=flow_euler()), tmp_path)
    change(tmp_path / "scheduler" / "scheduler_config.json", **values)
    with pytest.raises(UserError, match=r"scheduler_config\.json"):
        loaded(tmp_path)


def test_a_flow_that_ends_in_noise_is_refused(model: Path) -> None:
    change(model / "scheduler" / "scheduler_config.json", final_sigmas_type="sigma_min")
    with pytest.raises(UserError, match="levels fall from at most 1 to 0"):
        loaded(model)


def test_schedules_of_unets_are_no_flows(golden_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden_folder / "model", tmp_path / "model"))
    flow_unipc().save_pretrained(folder / "scheduler")
    change(folder / "model_index.json", scheduler=["diffusers", "UniPCMultistepScheduler"])
    with pytest.raises(UserError, match="this is flow matching"):
        found(folder)


def test_cogvideox_schedule_of_another_kind(tmp_path: Path) -> None:
    saved(tiny_cogvideox(), tmp_path)
    change(tmp_path / "scheduler" / "scheduler_config.json", snr_shift_scale=-1)
    with pytest.raises(UserError, match="snr_shift_scale is -1"):
        found(tmp_path)
    FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(UserError, match="this is flow matching"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("networks", "option"),
    [
        ({"motion_adapter": "picturebook-motion"}, "--motion-adapter"),
        ({"embedding": ("x.safetensors",)}, "--embedding"),
        ({"clip_skip": 1}, "--clip-skip"),
    ],
)
def test_additions_are_for_unets(wan: Path, networks: dict[str, Any], option: str) -> None:
    with pytest.raises(UserError, match=f"is a transformer, of Wan: {option} can be added to UNets only"):
        found(wan, **networks)


# Weights


def _without_one(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _of_another_shape(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.zeros(*tensors[name].shape, 2)


def _not_a_number(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name].view(-1)[-1] = float("nan")


def _too_many(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[f"more.{name}"] = tensors[name].clone()


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", [_without_one, _of_another_shape, _not_a_number, _too_many])
def test_weights_are_whole(model: Path, part: str, damage: Callable[[dict[str, torch.Tensor], str], None]) -> None:
    file = model / part / f"{STEMS[part]}.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[7]
    damage(tensors, name)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        loaded(model)


def test_pickles_are_not_opened(model: Path) -> None:
    file = model / "transformer" / f"{STEMS['transformer']}.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(UserError, match="no safetensors weights in transformer/"):
        loaded(model)


@pytest.mark.slow
def test_weights_in_pieces_and_variants(model: Path) -> None:
    whole = loaded(model).transformer
    (model / "transformer" / f"{STEMS['transformer']}.safetensors").unlink()
    whole.save_pretrained(model / "transformer", max_shard_size="100KB")
    whole.to(torch.bfloat16).save_pretrained(model / "transformer", variant="bf16")
    full, bf16 = loaded(model).transformer, loaded(model, torch.bfloat16).transformer
    assert {value.dtype for value in full.parameters()} == {torch.float32}
    assert not torch.equal(full.proj_out.weight, bf16.proj_out.weight.float())
    assert torch.equal(full.proj_out.weight.bfloat16(), bf16.proj_out.weight)


@pytest.mark.parametrize(
    ("maker", "file", "values"),
    [
        (tiny_wan, "transformer", {"num_layers": 3}),
        (tiny_wan, "transformer", {"rope_max_seq_len": 10**12}),
        (tiny_wan, "transformer", {"attention_head_dim": 10**9}),
        (tiny_wan, "transformer", {"patch_size": [1, 10**6, 10**6]}),
        (tiny_wan, "transformer", {"patch_size": "x"}),
        (tiny_wan, "transformer", {"freq_dim": -1}),
        (tiny_wan, "vae", {"z_dim": 10**9}),
        (tiny_wan, "vae", {"scale_factor_spatial": 16}),
        (tiny_wan, "vae", {"latents_mean": [0.0] * 3}),
        (tiny_wan, "vae", {"latents_std": [0.0] * 4}),
        (tiny_wan, "text_encoder", {"relative_attention_num_buckets": 10**12}),
        (tiny_wan, "text_encoder", {"feed_forward_proj": "evil"}),
        (tiny_ltx, "vae", {"patch_size": 10**6}),
        (tiny_ltx, "vae", {"temporal_compression_ratio": 4}),
        (tiny_cogvideox, "transformer", {"sample_width": 10**9}),
        (tiny_cogvideox, "transformer", {"sample_frames": 10**9}),
        (tiny_cogvideox, "vae", {"temporal_compression_ratio": 10**5}),
        (tiny_hunyuan_video, "transformer", {"rope_axes_dim": [10**9]}),
        (tiny_hunyuan_video, "text_encoder", {"num_key_value_heads": 0}),
        (tiny_stable_diffusion_3, "transformer", {"pos_embed_max_size": 10**6}),
        (tiny_stable_diffusion_3, "transformer", {"sample_size": 10**9}),
        (tiny_flux, "transformer", {"axes_dims_rope": [10**9, 2, 2]}),
        (tiny_flux, "vae", {"shift_factor": "x"}),
    ],
)
def test_absurd_configurations_are_refused(
    maker: Callable[[], Any], file: str, values: dict[str, Any], tmp_path: Path
) -> None:
    change(saved(maker(), tmp_path) / file / "config.json", **values)
    with pytest.raises(UserError) as refused:
        loaded(tmp_path)
    assert len(str(refused.value)) < 1000


# Parts that do not belong together


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "values", "sentence"),
    [
        ("transformer", {"in_channels": 9}, "image-to-video and other conditioned"),
        ("transformer", {"image_dim": 32}, "is given an image beside the text"),
        ("transformer", {"text_dim": 24}, "a text encoder of width 32 and a transformer for 24"),
    ],
)
def test_transformers_for_other_parts(model: Path, part: str, values: dict[str, Any], sentence: str) -> None:
    """By their descriptions: `fatezero doctor` says it without weights."""
    config = json.loads((model / part / "config.json").read_text(encoding="utf-8"))
    WanTransformer3DModel.from_config(config | values).save_pretrained(model / part)
    said = [*describe(ModelOptions(model=str(model)))]
    assert not said[-1][0]
    with pytest.raises(UserError, match=sentence):
        loaded(model)


@pytest.mark.parametrize(
    ("maker", "field", "sentence"),
    [
        (tiny_hunyuan_video, "pooled_projection_dim", "a pooled text of 99 numbers"),
        (tiny_stable_diffusion_3, "pooled_projection_dim", "a pooled text of 99 numbers"),
        (tiny_stable_diffusion_3, "joint_attention_dim", "a transformer for 99"),
        (tiny_flux, "joint_attention_dim", "a transformer for 99"),
        (tiny_flux, "in_channels", "and latents of 16"),
        (tiny_ltx, "caption_channels", "a transformer for 99"),
    ],
)
def test_texts_of_other_widths(maker: Callable[[], Any], field: str, sentence: str) -> None:
    pipeline = maker()
    pipeline.transformer.register_to_config(**{field: 99})
    with pytest.raises(UserError, match=sentence):
        check_transformer_parts(FAMILY_OF[type(pipeline).__name__], pipeline.components, "it")


def test_both_stages_have_the_same_layers() -> None:
    pipeline = tiny_wan_in_two_stages()
    pipeline.transformer_2.register_to_config(num_layers=1)
    with pytest.raises(UserError, match="a transformer_2 that differ in num_layers: both stages need the same layers"):
        check_transformer_parts(FAMILY_OF[type(pipeline).__name__], pipeline.components, "it")


def test_both_clip_tokenizers_read_the_same_words(tmp_path: Path) -> None:
    other = clip_tokenizer()
    other.model_max_length = 40
    saved(tiny_stable_diffusion_3(tokenizer_2=other), tmp_path)
    with pytest.raises(UserError, match="know other words or lengths"):
        loaded(tmp_path)


# Autoencoders


def test_another_autoencoder(wan: Path, tmp_path: Path) -> None:
    other = tiny_wan().vae
    other.decoder.conv_out.bias += 1
    other.save_pretrained(tmp_path / "vae")
    folder = vae_folder(str(tmp_path / "vae"), wan)
    pipeline = loaded(wan, vae=folder)
    assert torch.equal(pipeline.vae.decoder.conv_out.bias, other.decoder.conv_out.bias)
    plain, with_it = (find_checkpoint(ModelOptions(model=str(wan), vae=vae)).digest for vae in (None, str(folder)))
    assert plain != with_it


def test_autoencoders_of_other_latents_are_refused(wan: Path, tmp_path: Path) -> None:
    tiny_wan_of_patches().vae.save_pretrained(tmp_path / "patches")
    with pytest.raises(UserError, match="latents of 6 channels, the model is for 4"):
        vae_folder(str(tmp_path / "patches"), wan)
    AutoencoderKL().save_pretrained(tmp_path / "images")
    with pytest.raises(UserError, match="of the class 'AutoencoderKL'"):
        vae_folder(str(tmp_path / "images"), wan)
    file = tmp_path / "vae.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="layout of diffusers' AutoencoderKLWan"):
        vae_folder(str(file), wan)


# Sizes


@pytest.mark.parametrize(
    ("maker", "size", "frames"),
    [
        (tiny_wan, (480, 16), (81, 4)),
        (tiny_wan_of_patches, (704, 32), (81, 4)),
        (tiny_ltx, (512, 32), (161, 8)),
        (tiny_cogvideox, (64, 16), (9, 8)),
        (tiny_hunyuan_video, (720, 16), (129, 4)),
        (tiny_stable_diffusion_3, (128, 16), (1, 1)),
        (tiny_flux, (1024, 16), (1, 1)),
    ],
)
def test_native_sizes(maker: Callable[[], Any], size: tuple[int, int], frames: tuple[int, int], tmp_path: Path) -> None:
    saved(maker(), tmp_path)
    assert native_size(tmp_path) == size
    assert native_frames(tmp_path) == frames


def test_cogvideox_15(tmp_path: Path) -> None:
    """Its configuration states latents of 300 in a row, which it was not trained at; it joins latents in time."""
    saved(tiny_cogvideox(), tmp_path)
    values = {"sample_height": 300, "sample_width": 300, "sample_frames": 81, "patch_size_t": 2}
    change(tmp_path / "transformer" / "config.json", **values)
    assert native_size(tmp_path) == (768, 16)
    assert native_frames(tmp_path) == (81, 16)


def test_a_small_model_states_its_size(model: Path) -> None:
    before = find_checkpoint(ModelOptions(model=str(model))).digest
    (model / "fatezero.json").write_text('{"trained_on": {"side": 128, "frames": 17}, "steps": 7}', encoding="utf-8")
    assert native_size(model) == (128, 16)
    assert native_frames(model) == (17, 4)
    assert recommended_method(model).steps == 7
    assert find_checkpoint(ModelOptions(model=str(model))).digest == before


@pytest.mark.parametrize("stated", ['"x"', '{"side": "x"}', '{"side": true}', '{"frames": 0}', '{"width": 128}', "[]"])
def test_what_it_was_trained_on_is_two_numbers(model: Path, stated: str) -> None:
    (model / "fatezero.json").write_text(f'{{"trained_on": {stated}}}', encoding="utf-8")
    with pytest.raises(UserError, match="trained_on is"):
        trained_on(model)


# Published shapes: numbers as on their cards

WAN_22_VAE = {
    **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12},
    **{"out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.1] * 48},
    "latents_std": [1.0] * 48,
}
T5_XXL = {
    **{"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
    "feed_forward_proj": "gated-gelu",
}
COGVIDEOX_15 = {
    **{"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True, "patch_size_t": 2},
    **{"sample_height": 300, "sample_width": 300, "sample_frames": 81, "patch_bias": False},
}
PUBLISHED = [
    ("WanTransformer3DModel", {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}, 1.42),
    ("AutoencoderKLWan", WAN_22_VAE, 0.7),
    ("UMT5EncoderModel", {"vocab_size": 256384, **T5_XXL}, 5.68),
    ("CogVideoXTransformer3DModel", COGVIDEOX_15, 5.57),
    *(
        pytest.param(*published, marks=pytest.mark.slow)
        for published in (
            ("WanTransformer3DModel", {}, 14.29),
            ("LTXVideoTransformer3DModel", {}, 1.92),
            ("CogVideoXTransformer3DModel", {}, 1.69),
            ("T5EncoderModel", {"vocab_size": 32128, **T5_XXL}, 4.76),
            ("HunyuanVideoTransformer3DModel", {}, 12.82),
            ("AutoencoderKLHunyuanVideo", {}, 0.25),
            ("FluxTransformer2DModel", {"guidance_embeds": True}, 11.9),
        )
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("class_name", "values", "billions"), PUBLISHED)
def test_published_shapes_are_sound(class_name: str, values: dict[str, Any], billions: float) -> None:
    config = text_config(class_name, values, Path("x")) if class_name in TEXT_ENCODERS else values
    network = check_description(class_name, config, "config.json")
    assert sum(value.numel() for value in network.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    check_depth(values, network.state_dict(), Path("config.json"))


def test_of_wans_repository_the_parts_are_fetched() -> None:
    parts = {"transformer": 2, "text_encoder": 5, "vae": 1}
    weights = []
    for part, pieces in parts.items():
        names = [f"{part}/{STEMS[part]}-{n:05}-of-{pieces:05}.safetensors" for n in range(1, pieces + 1)]
        index = [f"{part}/{STEMS[part]}.safetensors.index.json"]
        weights += [f"{part}/{STEMS[part]}.safetensors"] if pieces == 1 else names + index
    beside = [
        "model_index.json",
        "tokenizer/spiece.model",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ]
    other = ["README.md", "assets/video.mp4", "transformer/old.bin"]
    assert wanted_files([*weights, *beside, *other], STEMS.items(), None) == sorted([*weights, *beside])


# What the doctor says


@pytest.mark.parametrize(
    ("maker", "lines"),
    [
        (
            tiny_wan_in_two_stages,
            (
                *("transformer_2: WanTransformer3DModel", "two stages: transformer_2 denoises below 0.875"),
                *("flow matching, UniPCMultistepScheduler, shift 3, 1000 levels", "tokenizer: 128 tokens"),
                "short side of 480 pixels, sides in multiples of 16; clips of 81 frames, in lengths of 4k + 1",
            ),
        ),
        (tiny_wan_of_patches, ("timesteps: one for each token", "704 pixels, sides in multiples of 32")),
        (tiny_cogvideox, ("CogVideoXDDIMScheduler, scaled_linear betas", "predicts v_prediction")),
        (tiny_flux, ("shift 0.5 at 256 tokens to 1.15 at 4096", "text_encoder_2: T5EncoderModel")),
    ],
)
def test_the_doctor_says_what_it_is(maker: Callable[[], Any], lines: tuple[str, ...], tmp_path: Path) -> None:
    saved(maker(), tmp_path)
    said = [*describe(ModelOptions(model=str(tmp_path)))]
    assert all(serves for serves, _ in said)
    for line in lines:
        assert any(line in one for _, one in said), line


def test_the_doctor_says_what_loads_and_cannot_edit(tmp_path: Path) -> None:
    own = {name: value for name, value in tiny_cogvideox().transformer.config.items() if name[0] != "_"}
    saved(tiny_cogvideox(transformer=CogVideoXTransformer3DModel(**(own | {"patch_size_t": 2}))), tmp_path)
    *_, (serves, said) = describe(ModelOptions(model=str(tmp_path)))
    assert not serves
    assert "is CogVideoX 1.5, whose patches span several latents in time" in said


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_any_value_may_be_wrong(maker: Callable[[], Any], tmp_path: Path) -> None:
    """Every file of settings, a random value of it replaced: it loads, or a sentence says why not."""
    folder, rng = saved(maker(), tmp_path), random.Random(0)
    files = [file for file in sorted(folder.rglob("*.json")) if file.name not in {"vocab.json", "tokenizer.json"}]
    for file in files * 12:
        written = file.read_text(encoding="utf-8")
        data = json.loads(written)
        file.write_text(json.dumps(replaced(data, rng.choice([*places(data)]), rng.choice(ODD))), encoding="utf-8")
        with suppress(UserError):
            loaded(folder)
        file.write_text(written, encoding="utf-8")
