"""FateZero computed a second time, the plain way: float64, maps made and edited, nothing shared with the package.

It says what the editor must return on the machine at hand, which no recording can. Only the layers themselves are
diffusers'; configurations are read as FateZero's own YAML states them. Its behaviour follows the paper and, where that
is silent, the authors' code; with `bugs` it also repeats what that code gets wrong.

Shape letters: F frames, H heads, Q queries, K keys, S and T tokens of source and target, N steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, scaled_dot_product_attention

CONTEXT = 77
SIDE = {"down": 0, "mid": 1, "up": 2}
Maps = dict[str, Tensor]  # by layer: F,H,Q,K
Nudge = Callable[[Tensor], Tensor]  # a change as small as one rounding to float32


def unchanged(x: Tensor) -> Tensor:
    """No change."""
    return x


@dataclass(frozen=True)
class Roundings:
    """Where the recording machine may have rounded float32 numbers otherwise than this one.

    Attributes:
        start: of the clean latent, and of the noisy one that the edit starts from.
        embedding: of the sinusoidal embedding of a timestep.
        tables: of the square roots of a noise level.
    """

    start: Nudge = unchanged
    embedding: Nudge = unchanged
    tables: Nudge = unchanged


@dataclass
class Computed:
    """What came out.

    Attributes:
        inverted: F,C,h,w, the noisy end of the inversion.
        edited: by edit step, F,C,h,w after it.
        attention_masks: by edit step, bool F,h,w by which self-attention was blended, at latent size.
        latent_masks: by edit step, bool 2,F,h,w: the source's mask, and the one that was applied.
        decoded: F,3,H,W in 0..1 of the last latents.
    """

    inverted: Tensor
    edited: list[Tensor] = field(default_factory=list)
    attention_masks: dict[int, Tensor] = field(default_factory=dict)
    latent_masks: dict[int, Tensor] = field(default_factory=dict)
    decoded: Tensor = field(default_factory=lambda: torch.empty(0))


class Reference:
    """One edit of FateZero's configuration, on one checkpoint."""

    frames: int  # of the clip at hand
    branches: int  # of the call under way
    on_maps: Callable[[str, Tensor], Tensor]  # what becomes of a layer's map, in the last branch of that call
    seen: Maps  # the target's cross-attention before fusion, summed over steps

    def __init__(
        self,
        pipe: Any,
        config: dict[str, Any],
        biases: dict[str, npt.NDArray[Any]],
        *,
        bugs: bool,
        roundings: Roundings = Roundings(),
    ) -> None:
        """Take the networks in float64, the configuration, and the biases that its temporal attention adds."""
        editing, model = config["editing_config"], config["model_config"]
        self.pipe = pipe
        self.source: str = config["dataset_config"]["prompt"]
        self.target: str = editing["editing_prompts"][0]
        self.p2p: dict[str, Any] | None = editing["p2p_config"][0] if editing["prompt2prompt_edit"] else None
        self.count: int = editing["num_inference_steps"]
        self.guidance: float = editing["guidance_scale"]
        self.key_frames: list[int | str] = model.get("SparseCausalAttention_index", [-1, "first"])
        self.min_width: int = model.get("least_sc_channel", 0)
        self.token_limit: int = config.get("patched_token_limit", 1024)
        self.biases = {name: torch.from_numpy(value).double() for name, value in biases.items()}
        self.bugs = bugs
        self.roundings = roundings
        layers = [name.removesuffix(".processor") for name in pipe.unet.attn_processors]
        self.layers = sorted(layers, key=lambda name: SIDE[name.split("_")[0]])

    @torch.no_grad()
    def run(self, clean: Tensor) -> Computed:
        """Invert and edit latents F,C,h,w."""
        self.frames = len(clean)
        with self._video_network():
            latents, maps = self._invert(self.roundings.start(clean))
            computed = Computed(latents[-1])
            self._edit(computed, latents, maps)
        del self.on_maps, self.seen  # which hold maps of gigabytes, and this object in a circle
        vae = self.pipe.vae
        frames = [vae.decode(latent[None] / vae.config.scaling_factor).sample for latent in computed.edited[-1]]
        computed.decoded = (torch.cat(frames) / 2 + 0.5).clamp(0, 1)
        return computed

    # Schedule

    def _timesteps(self) -> list[int]:
        """Rising; each step is told the noisier of its two levels."""
        return [i * (1000 // self.count) + 1 for i in range(self.count)]

    def _level(self, timestep: int) -> tuple[Tensor, Tensor]:
        """Roots of the shares of signal and noise; below the first level the schedule starts at level 0."""
        alpha = self.pipe.scheduler.alphas_cumprod[max(timestep, 0)]
        return self.roundings.tables(alpha.sqrt()), self.roundings.tables((1 - alpha).sqrt())

    def _move(self, x: Tensor, noise: Tensor, from_timestep: int, to_timestep: int) -> Tensor:
        (signal, spread), (signal_to, spread_to) = self._level(from_timestep), self._level(to_timestep)
        return signal_to * (x - spread * noise) / signal + spread_to * noise

    # Inversion and edit

    def _invert(self, clean: Tensor) -> tuple[list[Tensor], list[Maps]]:
        text = self._embed(self.source)
        latents, maps = [clean], []
        for timestep in self._timesteps():
            recorded: Maps = {}
            self.on_maps = partial(self._record, recorded)
            noise = self._predict(latents[-1], timestep, [text])[0]
            latents.append(self._move(latents[-1], noise, timestep - 1000 // self.count, timestep))
            maps.append(recorded)
        return latents, maps

    def _record(self, kept: Maps, layer: str, probs: Tensor) -> Tensor:
        if probs.shape[2] <= self.token_limit:
            kept[layer] = probs
        return probs

    def _edit(self, computed: Computed, inverted: list[Tensor], maps: list[Maps]) -> None:
        texts = [self._embed(""), self._embed(self.target)]
        latents, size = self.roundings.start(inverted[-1]), (inverted[-1].shape[-2], inverted[-1].shape[-1])
        self.seen = {}
        for step, timestep in enumerate(reversed(self._timesteps())):
            place = self.count - 1 - step
            source, mask = maps[place], self._attention_mask(maps[place], step)
            if mask is not None:
                computed.attention_masks[step] = mask(size)
            self.on_maps = partial(self._fuse, step, source, mask)
            free, bound = self._predict(latents, timestep, texts)
            noise = free + self.guidance * (bound - free)
            latents = self._move(latents, noise, timestep, timestep - 1000 // self.count)
            if self._blends_latents(step):
                masks = self._latent_masks(source, size)
                computed.latent_masks[step] = masks
                behind = inverted[place + 1] if self.bugs else inverted[place]
                latents = behind + masks[1][:, None] * (latents - behind)
            computed.edited.append(latents)

    def _embed(self, prompt: str) -> Tensor:
        ids = self.pipe.tokenizer(prompt, padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids
        hidden: Tensor = self.pipe.text_encoder(ids)[0]
        return hidden

    def _predict(self, latents: Tensor, timestep: int, texts: list[Tensor]) -> list[Tensor]:
        """Of each text; the last one's attention goes through `on_maps`."""
        self.branches = len(texts)
        batch = torch.cat([latents] * len(texts))
        text = torch.cat([text.expand(self.frames, -1, -1) for text in texts])
        return list(self.pipe.unet(batch, timestep, encoder_hidden_states=text).sample.chunk(len(texts)))

    # Fusion

    def _fuse(
        self, step: int, source: Maps, mask: Callable[[tuple[int, int]], Tensor] | None, layer: str, probs: Tensor
    ) -> Tensor:
        if layer.endswith("attn2") and probs.shape[2] <= self.token_limit:
            self.seen[layer] = self.seen.get(layer, torch.zeros(())) + probs
        if self.p2p is None or layer not in source:
            return probs
        if layer.endswith("attn2"):
            return self._fused_cross(source[layer], probs, step)
        first, behind = (int(share * self.count) for share in _window(self.p2p["self_replace_steps"]))
        if not first <= step < behind:
            return probs
        if mask is None:
            return source[layer]
        side = int(probs.shape[2] ** 0.5)
        rows = mask((side, side)).flatten(1)[:, None, :, None].to(probs)
        return rows * probs + (1 - rows) * source[layer]

    def _fused_cross(self, source_FHQS: Tensor, target_FHQT: Tensor, step: int) -> Tensor:
        assert self.p2p is not None
        if self.p2p["is_replace_controller"]:
            coefficients = self._replacement()
            fused = source_FHQS @ coefficients
            if not self.bugs:  # columns that no source token stands behind stay the target's own
                fused = torch.where(coefficients.sum(0) > 0, fused, target_FHQT)
        else:
            mapper = self._refinement()
            fused = torch.where(mapper >= 0, source_FHQS[..., mapper.clamp(min=0)], target_FHQT)
        weights = self.p2p.get("eq_params", {"words": [], "values": []})
        for word, value in zip(weights["words"], weights["values"], strict=True):
            fused[..., self._tokens_of(self.target, word)] *= value
        alpha = self._alpha(step)
        return alpha * fused + (1 - alpha) * target_FHQT

    def _alpha(self, step: int) -> Tensor:
        """T: 1 where a token's window is open, counted in N + 1 parts."""
        assert self.p2p is not None
        windows = dict(self.p2p["cross_replace_steps"])
        alpha = torch.zeros(CONTEXT, dtype=torch.float64)
        for word, window in [("default_", windows.pop("default_")), *windows.items()]:
            first, behind = (int(share * (self.count + 1)) for share in _window(window))
            tokens = range(CONTEXT) if word == "default_" else self._tokens_of(self.target, word)
            alpha[list(tokens)] = float(first <= step < behind)
        return alpha

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self.pipe.tokenizer(prompt).input_ids
        return ids

    def _words(self, prompt: str) -> list[list[int]]:
        """Tokens of each word, by spelling the prompt's tokens out one after another."""
        spelled = [self.pipe.tokenizer.decode([i]).strip() for i in self._ids(prompt)[1:-1]]
        words: list[list[int]] = []
        place = 1
        for word in prompt.split():
            tokens, spelled_so_far = [], ""
            while spelled_so_far != word.lower():
                spelled_so_far += spelled[place - 1]
                tokens.append(place)
                place += 1
            words.append(tokens)
        return words

    def _tokens_of(self, prompt: str, *wanted: str) -> list[int]:
        words = zip(prompt.split(), self._words(prompt), strict=True)
        return [token for word, tokens in words if word in wanted for token in tokens]

    def _replacement(self) -> Tensor:
        """S,T: each word's tokens stand behind those of the word at its place; the rest is matched in order."""
        coefficients = torch.zeros(CONTEXT, CONTEXT, dtype=torch.float64)
        coefficients[0, 0] = 1
        source, target = self._words(self.source), self._words(self.target)
        changed = [a != b for a, b in zip(self.source.split(), self.target.split(), strict=True)]
        for old, new in zip(source, target, strict=True):
            for s in old:
                for t in new:
                    if len(old) != len(new):
                        coefficients[s, t] = 1 / len(new)
                    elif old.index(s) == new.index(t):
                        coefficients[s, t] = 1
        shift = source[-1][-1] - target[-1][-1]
        for t in range(target[-1][-1] + 1, CONTEXT):
            if t + shift < CONTEXT:
                coefficients[t + shift, t] = 1
        if self.bugs and any(changed):
            # After the last changed word the authors' code goes by the target's index on both sides.
            behind = target[len(changed) - 1 - changed[::-1].index(True)][-1] + 1
            coefficients[:, behind:] = torch.eye(CONTEXT, dtype=torch.float64)[:, behind:]
        return coefficients

    def _refinement(self) -> Tensor:
        """T: the source token behind each target token in the longest common subsequence; -1 behind new ones."""
        source, target = self._ids(self.source), self._ids(self.target)
        score = np.zeros((len(source) + 1, len(target) + 1), dtype=int)
        for i, a in enumerate(source):
            for j, b in enumerate(target):
                score[i + 1, j + 1] = max(score[i, j + 1], score[i + 1, j], score[i, j] + (1 if a == b else -1))
        mapper = [-1] * len(target)
        i, j = len(source), len(target)
        while i and j:
            if score[i, j] == score[i, j - 1]:
                j -= 1
            elif score[i, j] == score[i - 1, j]:
                i -= 1
            else:
                i, j = i - 1, j - 1
                mapper[j] = i
        return torch.tensor([*mapper, *range(len(target), CONTEXT)])

    # Masks

    def _attention_mask(self, source: Maps, step: int) -> Callable[[tuple[int, int]], Tensor] | None:
        p2p = self.p2p
        if p2p is None or not (p2p.get("blend_words") and p2p.get("blend_self_attention")):
            return None
        first, behind = (int(share * self.count) for share in _window(p2p["self_replace_steps"]))
        if not first <= step < behind:
            return None
        tokens = self._tokens_of(self.source, *p2p["blend_words"][0])
        return lambda size: self._mask(source, tokens, size)

    def _blends_latents(self, step: int) -> bool:
        wanted = self.p2p and self.p2p.get("blend_words") and self.p2p.get("blend_latents")
        return bool(wanted) and int(0.2 * self.count) < step + 1 < int(0.8 * self.count)

    def _latent_masks(self, source: Maps, size: tuple[int, int]) -> Tensor:
        assert self.p2p is not None
        old, new = self.p2p["blend_words"]
        before = self._mask(source, self._tokens_of(self.source, *old), size)
        after = self._mask(self.seen, self._tokens_of(self.target, *new), size)
        return torch.stack([before, before | after])

    def _mask(self, maps: Maps, tokens: list[int], size: tuple[int, int]) -> Tensor:
        """Bool F,rows,columns of the layers at a quarter of the latent's size."""
        assert self.p2p is not None
        chosen = [maps[name][..., tokens].sum(-1) for name in self._mask_layers(maps)]
        heads_FHQ = torch.cat(chosen, dim=1)
        side = int(heads_FHQ.shape[-1] ** 0.5)
        soft = max_pool2d(heads_FHQ.mean(1).unflatten(1, (side, side))[:, None], 3, stride=1, padding=1)
        soft = interpolate(soft, size=size, mode="nearest")[:, 0]
        mask: Tensor = soft / soft.amax((1, 2), keepdim=True) > self.p2p["blend_th"][0]
        return mask

    def _mask_layers(self, maps: Maps) -> list[str]:
        """Stable Diffusion's five layers at a quarter of the latent's size."""
        crosses = {
            side: [n for n in self.layers if n in maps and n.startswith(side) and n.endswith("attn2")] for side in SIDE
        }
        return crosses["down"][2:4] + crosses["up"][:3]

    # Network

    @contextmanager
    def _video_network(self) -> Iterator[None]:
        """Attention that makes its maps, norms over the whole clip, and temporal biases, while the context lasts."""
        unet = self.pipe.unet
        processors = dict(unet.attn_processors)
        with ExitStack() as stack:
            stack.callback(lambda: unet.set_attn_processor(processors))
            unet.set_attn_processor({f"{name}.processor": _MapMaker(self, name) for name in self.layers})
            for name, module in unet.named_modules():
                if isinstance(module, nn.GroupNorm) and (".resnets." in name or name == "conv_norm_out"):
                    stack.enter_context(patch.object(module, "forward", self._clip_norm(module)))
                bias = self.biases.get(f"{name}.attn_temporal.to_out.0.bias")
                if bias is not None:
                    add = module.register_forward_hook(lambda _, __, output, bias=bias: output + bias)
                    stack.callback(add.remove)
            embed = unet.time_proj.forward
            rounded = patch.object(unet.time_proj, "forward", lambda t: self.roundings.embedding(embed(t)))
            stack.enter_context(rounded)
            yield

    def _clip_norm(self, norm: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            grouped = x.unflatten(0, (-1, self.frames)).unflatten(2, (norm.num_groups, -1))  # B,F,G,c,h,w
            mean = grouped.mean((1, 3, 4, 5), keepdim=True)
            variance = grouped.var((1, 3, 4, 5), keepdim=True, unbiased=False)
            normed = ((grouped - mean) / (variance + norm.eps).sqrt()).reshape(x.shape)
            scaled: Tensor = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
            return scaled

        return forward

    def keys_of(self, frame: int) -> list[int]:
        """Frames that a frame attends to."""
        last = self.frames - 1
        named = {"first": 0, "mid": last // 2, "middle": last // 2, "last": last}
        return [named[key] if isinstance(key, str) else min(max(frame + key, 0), last) for key in self.key_frames]


class _MapMaker:
    """A diffusers attention processor that makes its map, frame by frame, where it is small enough to be kept."""

    def __init__(self, reference: Reference, layer: str) -> None:
        self._reference = reference
        self._layer = layer

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        run, cross = self._reference, encoder_hidden_states is not None
        context = encoder_hidden_states if encoder_hidden_states is not None else hidden_states
        outputs = []
        for branch in range(run.branches):
            own = slice(branch * run.frames, (branch + 1) * run.frames)
            queries, keys, values = attn.to_q(hidden_states[own]), attn.to_k(context[own]), attn.to_v(context[own])
            if not cross and run.key_frames and attn.query_dim >= run.min_width:
                keys, values = (
                    torch.stack([torch.cat([x[k] for k in run.keys_of(f)]) for f in range(run.frames)])
                    for x in (keys, values)
                )
            q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (queries, keys, values))
            if q.shape[2] > run.token_limit:  # whose maps are neither kept nor fused
                outputs.append(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
                continue
            probs_FHQK = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
            if branch == run.branches - 1:
                probs_FHQK = run.on_maps(self._layer, probs_FHQK)
            outputs.append((probs_FHQK @ v).transpose(1, 2).flatten(2))
        projected: Tensor = attn.to_out[0](torch.cat(outputs))
        return projected


def _window(value: Any) -> tuple[float, float]:
    return (value[0], value[1]) if isinstance(value, list) else (0.0, value)


def load_networks(folder: Path) -> Any:
    """The checkpoint in float64, as diffusers loads it."""
    return DiffusionPipeline.from_pretrained(folder, dtype=torch.float64, use_safetensors=True, safety_checker=None)
