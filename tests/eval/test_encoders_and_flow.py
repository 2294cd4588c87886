"""Encoders against the libraries they wrap; flow against known motion; both independent of batching."""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models.optical_flow import raft_small
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from fatezero.errors import UserError
from fatezero_eval.networks import clip, dino, flow, lpips
from fatezero_eval.networks.array_cache import ArrayCache, digest
from fatezero_eval.networks.given_flow import read_flow


def test_open_clip_embeddings_are_open_clips_own(tiny_clip, judge, make_frames):
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    model.eval()
    frames = make_frames(3, 0)
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames])
        expected = model.encode_image(pixels, normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")(["a red owl"])
        words = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(judge.images(frames)["projected"], expected, atol=1e-5)
    np.testing.assert_allclose(judge.texts(["a red owl"]), words, atol=1e-5)
    pooled = judge.images(frames)["pooled"]
    assert pooled.shape == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=-1), 1, atol=1e-6)


def same_in_parts(encode, frames):
    """Whether 19 frames give the same bytes together, in three parts, and without those after the third."""
    whole = encode(frames)
    parts = [encode(frames[start : start + 8]) for start in (0, 8, 16)]
    return np.array_equal(whole, np.concatenate(parts)) and np.array_equal(whole[:3], encode(frames[:3]))


@pytest.mark.parametrize("kind", ["projected", "pooled"])
def test_embeddings_do_not_depend_on_the_batch(judge, make_frames, kind):
    assert same_in_parts(lambda frames: judge.images(frames)[kind], make_frames(19, 1))


def test_embeddings_of_prompts_do_not_depend_on_their_company(judge):
    both = judge.texts(["a red owl", "a fox"])
    assert np.array_equal(both[1], judge.texts(["a fox"])[0])


def test_a_prompt_beyond_the_context_is_refused(judge):
    judge.texts(["a " * 22])
    with pytest.raises(UserError, match="longer than the 24 tokens"):
        judge.texts(["a " * 23])


def test_a_word_that_a_small_judge_never_learnt_is_refused(judge):
    with pytest.raises(UserError, match=r"does not know 'zebra' in the prompt 'a red zebra'"):
        judge.texts(["a red zebra"])


def test_transformers_clip_is_read_from_a_folder(tmp_path, make_frames, tiny_clip):
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocabulary = len(CLIPTokenizer.from_pretrained(tiny_clip))
    config = CLIPConfig(
        text_config={**tower, "vocab_size": vocabulary, "max_position_embeddings": 24, "eos_token_id": vocabulary - 1},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "pick")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = CLIPProcessor(CLIPImageProcessor(**size), CLIPTokenizer.from_pretrained(tiny_clip))
    processor.save_pretrained(tmp_path / "pick")
    encoder = clip.load_clip(str(tmp_path / "pick"))
    frames = make_frames(2, 0)
    inputs = processor(text=["a red owl"], images=[Image.fromarray(f) for f in frames], return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    np.testing.assert_allclose(encoder.images(frames)["projected"], output.image_embeds, atol=1e-5)
    np.testing.assert_allclose(encoder.texts(["a red owl"]), output.text_embeds, atol=1e-5)
    assert encoder.logit_scale == pytest.approx(model.logit_scale.item())
    for kind in ("projected", "pooled"):
        assert same_in_parts(lambda frames, kind=kind: encoder.images(frames)[kind], make_frames(19, 1))
    with pytest.raises(UserError, match="longer than the 24 tokens"):
        encoder.texts(["a" * 23])


@pytest.mark.parametrize(("name", "message"), [("nothing/here", "no CLIP known here"), ("ViT-B-32", "no CLIP known")])
def test_an_unknown_clip_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        clip.load_clip(name)


def test_pickled_weights_are_refused(tmp_path, tiny_clip):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((tiny_clip / "open_clip_config.json").read_text())
    torch.save({}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="only safetensors"):
        clip.load_clip(str(folder))


def test_dino_keys_of_one_frame_are_the_last_blocks(make_frames):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, dynamic_img_size=True, depth=2)
    network = dino.Dino(vit, "tiny")
    frames = make_frames(2, 0, height=32, width=48)
    keys = network.keys(frames)
    assert keys.shape == (2, 1 + 14 * 21, 192)
    block = vit.blocks[-1]
    with torch.inference_mode():
        pixels = network._prepare(Image.fromarray(frames[1]))[None]
        tokens = block.norm1(vit.blocks[0](vit.norm_pre(vit._pos_embed(vit.patch_embed(pixels)))))
        expected = torch.nn.functional.linear(
            tokens, *(p[192:384] for p in (block.attn.qkv.weight, block.attn.qkv.bias))
        )
    np.testing.assert_allclose(keys[1], expected[0], atol=1e-4)
    assert same_in_parts(network.keys, make_frames(19, 0, height=16, width=16))


def test_lpips_is_torchmetrics_own_and_zero_for_equal_frames():
    torch.manual_seed(0)
    network = _LPIPS(pretrained=False, net="squeeze", pnet_rand=True)
    distance = lpips.Lpips(network, "random")
    a, b = torch.rand(2, 3, 64, 64)
    network.spatial = False
    expected = network(a[None] * 2 - 1, b[None] * 2 - 1).item()
    assert distance.of_frame(a, b).item() == pytest.approx(expected, rel=1e-6)
    assert distance.of_pixels(a, b).shape == (64, 64)
    assert distance.of_pixels(a, a).abs().max() == 0


def test_lpips_says_how_small_a_frame_may_be():
    distance = lpips.Lpips(_LPIPS(pretrained=False, net="alex", pnet_rand=True), "random")
    frame = torch.rand(3, 31, 40)
    assert distance.of_frame(frame, frame) == 0
    with pytest.raises(UserError, match="at least 31x31 pixels, and these are 40x30"):
        distance.of_frame(frame[:, 1:], frame[:, 1:])


@pytest.fixture(scope="module")
def shifted():
    rng = np.random.default_rng(0)
    canvas = torch.nn.functional.interpolate(
        torch.from_numpy(rng.random((1, 3, 40, 40))), size=(160, 160), mode="bicubic"
    )
    canvas = (canvas[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(canvas[10:138, 10:138]), np.ascontiguousarray(canvas[8:136, 13:141])


@pytest.mark.parametrize("name", ["dis", "farneback"])
def test_estimators_find_a_known_shift(shifted, name):
    estimated = flow.load_flow(name)(*shifted)
    assert estimated.shape == (2, 128, 128)
    inner = estimated[:, 16:-16, 16:-16]
    # what lies at p in the first frame lies 3 to the left and 2 down in the second
    np.testing.assert_allclose(inner.mean((1, 2)), [-3, 2], atol=0.05)


def test_raft_pads_and_crops(shifted):
    torch.manual_seed(0)
    raft = flow.Raft(raft_small(weights=None), "random")
    before, after = (frame[:, :126] for frame in shifted)
    before, after = (np.concatenate([frame, frame[:3]]) for frame in (before, after))
    assert before.shape == (131, 126, 3)
    assert raft(before, after).shape == (2, 131, 126)


def test_missing_weights_name_their_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="fetch it once with"):
        flow.load_flow("raft_small")
    with pytest.raises(UserError, match="fetch it once with"):
        lpips.load_lpips("alex")
    with pytest.raises(UserError, match="no flow estimator; choose dis"):
        flow.load_flow("guess")


def test_rafts_weights_are_named_by_what_they_hold(tmp_path):
    """Of files that have one name, flows must not be shared through the cache."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        (tmp_path / str(seed)).mkdir()
        save_file(raft_small(weights=None).state_dict(), tmp_path / str(seed) / "raft.safetensors")
    one, other = (flow.load_flow("raft_small", tmp_path / name / "raft.safetensors").id for name in ("0", "1"))
    assert one != other
    with pytest.raises(UserError, match=r"not the safetensors weights of torchvision's raft_large \(.*Missing key"):
        flow.load_flow("raft_large", tmp_path / "0" / "raft.safetensors")
    with pytest.raises(UserError, match="--raft holds RAFT's weights, and --flow is dis"):
        flow.load_flow("dis", tmp_path / "0" / "raft.safetensors")


@pytest.mark.parametrize(
    ("file", "load"),
    [("alexnet-owt-7be5be79.pth", lambda: lpips.load_lpips("alex")),
     ("raft_small_C_T_V2-01064c6d.pth", lambda: flow.load_flow("raft_small"))],
)  # fmt: skip
def test_a_damaged_file_in_torchvisions_cache_is_named(tmp_path, monkeypatch, file, load):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / file).write_bytes(b"half of it")
    with pytest.raises(UserError, match=rf"{file}: not torchvision's .*delete it, and fetch it again"):
        load()


def test_given_flow_is_read_in_both_layouts_and_checked(tmp_path):
    forward = np.random.default_rng(0).random((3, 2, 8, 9), dtype=np.float32)
    np.savez(tmp_path / "first.npz", forward=forward, backward=-forward)
    np.savez(tmp_path / "last.npz", forward=forward.transpose(0, 2, 3, 1), backward=-forward.transpose(0, 2, 3, 1))
    for name in ("first.npz", "last.npz"):
        given = read_flow(tmp_path / name)
        assert np.array_equal(given.forward, forward)
        assert np.array_equal(given.backward, -forward)
    np.savez(tmp_path / "one.npz", forward=forward)
    np.savez(tmp_path / "unequal.npz", forward=forward, backward=forward[1:])
    (tmp_path / "text.npz").write_text("no arrays")
    forward[0, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", forward=forward, backward=-forward)
    for name in ("one.npz", "unequal.npz", "text.npz", "none.npz", "nan.npz"):
        with pytest.raises(UserError, match=name):
            read_flow(tmp_path / name)


def test_cache_returns_what_was_computed_and_mends_damage(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3, dtype=np.float32)}

    cache = ArrayCache(tmp_path)
    key = digest("flow", np.zeros((2, 2), np.uint8))
    assert key != digest("flow", np.zeros((1, 4), np.uint8))
    for _ in range(2):
        assert cache.get(key, compute)["x"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    file = next(tmp_path.rglob("*.npz"))
    file.write_bytes(file.read_bytes()[:20])
    assert cache.get(key, compute)["x"].tolist() == [0, 1, 2]
    assert len(calls) == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{key}.npz"]
    assert json.dumps(ArrayCache(None).get(key, compute)["x"].tolist()) == "[0.0, 1.0, 2.0]"
