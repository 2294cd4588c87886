"""FateZero on a video transformer a second time, the plain way: branch by branch, every map made and edited.

It says what the editor must return. Only the networks' layers and schedulers are diffusers'; of the package it reads
configurations alone. Its latents are F,C,h,w as the editor's.

Shape letters: F latents of the clip, H heads, Q queries, K keys, S and T tokens of source and target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from fatezero.config import FusionConfig, MethodConfig

Level = tuple[float, float, float]  # timestep, and the shares of noise at the cleaner and the noisier level
Maps = dict[tuple[int, str], Tensor]  # by window and layer: H,Q,K
OnMap = Callable[[int, str, Tensor], Tensor]  # what becomes of a map


class NetworksByHand(Protocol):
    """A family's networks, for one branch."""

    pipe: Any
    transformers: list[Any]
    pads: int  # places of a prompt with what is attended to behind it; 0 where that is nothing

    def levels(self, steps: int, shape: Sequence[int]) -> list[Level]:
        """Clean to noisy, for latents F,C,h,w."""

    def text(self, prompt: str) -> Any:
        """What the transformer is told of a prompt."""

    def velocity(self, latents: Tensor, timestep: float, text: Any) -> Tensor:
        """F,C,h,w."""


@dataclass
class WanByHand:
    """As WanPipeline calls its networks."""

    pipe: Any
    pads: int = 512

    @property
    def transformers(self) -> list[Any]:
        return [part for part in (self.pipe.transformer, self.pipe.transformer_2) if part is not None]

    def levels(self, steps: int, shape: Sequence[int]) -> list[Level]:
        return placed_levels(self.pipe.scheduler, num_inference_steps=steps)

    def text(self, prompt: str) -> Tensor:
        embedded: Tensor = self.pipe.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=self.pads
        )[0]
        return embedded

    def velocity(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        pipe, (frames, _, rows, columns) = self.pipe, latents.shape
        boundary = pipe.config.boundary_ratio
        transformer = pipe.transformer_2 if boundary is not None and timestep < 1000 * boundary else pipe.transformer
        told = torch.tensor([timestep], dtype=torch.float32)
        if pipe.config.expand_timesteps:
            told = torch.full((1, frames * rows * columns // 4), timestep)
        made: Tensor = transformer(latents.transpose(0, 1)[None], told, text, return_dict=False)[0]
        return made[0].transpose(0, 1)


@dataclass
class LTXByHand:
    """As LTXPipeline calls its networks."""

    pipe: Any
    pads: int = 0

    @property
    def transformers(self) -> list[Any]:
        return [self.pipe.transformer]

    def levels(self, steps: int, shape: Sequence[int]) -> list[Level]:
        config, (frames, _, rows, columns) = self.pipe.scheduler.config, shape
        least, most = config.base_image_seq_len, config.max_image_seq_len
        share = (frames * rows * columns - least) / (most - least)
        shift = (1 - share) * config.base_shift + share * config.max_shift
        return placed_levels(self.pipe.scheduler, sigmas=torch.linspace(1, 1 / steps, steps).tolist(), mu=shift)

    def text(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Of all 128 places, and which of them are the prompt's."""
        embedded, own, _, _ = self.pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        return embedded, own

    def velocity(self, latents: Tensor, timestep: float, text: tuple[Tensor, Tensor]) -> Tensor:
        frames, channels, rows, columns = latents.shape
        packed = latents.permute(0, 2, 3, 1).reshape(1, -1, channels)
        told = {"num_frames": frames, "height": rows, "width": columns}
        made = self.pipe.transformer(
            packed, text[0], torch.tensor([timestep], dtype=torch.float32), text[1],
            rope_interpolation_scale=(8 / 25, 32, 32), return_dict=False, **told,
        )[0]  # fmt: skip
        velocity: Tensor = made.reshape(frames, rows, columns, channels).permute(0, 3, 1, 2)
        return velocity


def placed_levels(scheduler: Any, **where: Any) -> list[Level]:
    """A scheduler's, clean to noisy."""
    scheduler.set_timesteps(**where)
    sigmas = scheduler.sigmas.tolist()
    falling = zip(scheduler.timesteps.tolist(), sigmas[1:], sigmas, strict=False)
    return list(falling)[::-1]


@dataclass
class NaiveResult:
    """What came out.

    Attributes:
        inverted: N+1,F,C,h,w, clean to noisy.
        edited: F,C,h,w after each step.
        attention_masks: by step, bool F,m,n by which self-attention was blended, at the maps' size.
        latent_masks: by step, bool F,m,n by which latents were blended, likewise.
        word_maps: F,m,n of each edited word, the mean over the inversion's steps.
    """

    inverted: list[Tensor]
    edited: list[Tensor] = field(default_factory=list)
    attention_masks: dict[int, Tensor] = field(default_factory=dict)
    latent_masks: dict[int, Tensor] = field(default_factory=dict)
    word_maps: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class NaiveEdit:
    """One edit.

    Attributes:
        networks: of one family.
        method: the configuration.
        source: prompt.
        target: prompt.
        edited_words: of the source.
        target_words: of the target.
        windows: of latents that the transformer sees at once, with the number of that which makes each latent's mask;
            None is the whole clip.
    """

    networks: NetworksByHand
    method: MethodConfig
    source: str
    target: str
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    windows: tuple[list[range], list[int]] | None = None
    on_map: OnMap = field(init=False)
    window: int = field(init=False, default=0)

    @torch.no_grad()
    def run(self, clean: Tensor) -> NaiveResult:
        """Invert and edit latents F,C,h,w."""
        self.frames, (rows, columns) = len(clean), clean.shape[2:]
        patch = self.networks.transformers[0].config.patch_size
        self.patch = patch if isinstance(patch, int) else patch[1]
        self.size = rows // self.patch, columns // self.patch
        with _every_map_made(self):
            levels = self.networks.levels(self.method.steps, clean.shape)
            inverted, maps = self._invert(clean, levels)
            result = NaiveResult(inverted)
            for word in self.edited_words:
                seen = [self._word_map(one, self._tokens_of(self.source, (word,))) for one in maps]
                result.word_maps[word] = torch.stack(seen).mean(0)
            self._edit(result, levels, maps)
        return result

    # Inversion and edit

    def _invert(self, clean: Tensor, levels: list[Level]) -> tuple[list[Tensor], list[Maps]]:
        text, latents, maps, last = self.networks.text(self.source), [clean], [], None
        for timestep, cleaner, noisier in levels:
            seen: Maps = {}
            asked, told = self._asked(latents[-1], cleaner, (timestep, cleaner, noisier), last)
            last = self._velocity(asked, told, text, partial(_kept, seen))
            latents.append(latents[-1] + (noisier - cleaner) * last)
            maps.append(seen)
        return latents, maps

    def _asked(self, z: Tensor, sigma: float, level: Level, last: Tensor | None) -> tuple[Tensor, float]:
        """The latents and the timestep that the network is asked about, where those at `sigma` are moved."""
        timestep, cleaner, noisier = level
        if self.method.solver_order == 1:
            return z, timestep
        middle = 0.5 * cleaner + 0.5 * noisier
        return (z if last is None else z + (middle - sigma) * last), timestep / noisier * middle

    def _edit(self, result: NaiveResult, levels: list[Level], maps: list[Maps]) -> None:
        method, count = self.method, self.method.steps
        texts, z, last = [self.networks.text(""), self.networks.text(self.target)], result.inverted[-1], None
        targets: Tensor | None = None
        for step in range(count):
            index = count - 1 - step
            _, cleaner, noisier = levels[index]
            asked, told = self._asked(z, noisier, levels[index], last)
            mask = self._attention_mask(maps[index], step)
            if mask is not None:
                result.attention_masks[step] = mask
            own: Maps = {}
            free = self._velocity(asked, told, texts[0], lambda _, __, probs: probs)
            bound = self._velocity(asked, told, texts[1], partial(self._fused, step, maps[index], mask, own))
            last = free + method.guidance_scale * (bound - free)
            z = z + (cleaner - noisier) * last
            seen = self._word_map(own, self._tokens_of(self.target, self.target_words))
            targets = seen if targets is None else targets + seen
            if self._blends_latents(step):
                z = self._blended(result, step, z, maps[index], targets)
            result.edited.append(z)

    def _blended(self, result: NaiveResult, step: int, z: Tensor, source: Maps, targets: Tensor) -> Tensor:
        blending = self.method.blending
        assert blending is not None
        soft = [self._word_map(source, self._tokens_of(self.source, self.edited_words))]
        if blending.latent_words == "both":
            soft.append(targets)
        result.latent_masks[step] = torch.stack([self._mask(one, self.size) for one in soft]).any(0)
        mask = torch.stack([self._mask(one, (z.shape[2], z.shape[3])) for one in soft]).any(0)
        return torch.where(mask[:, None], z, result.inverted[self.method.steps - 1 - step])

    def _velocity(self, z: Tensor, timestep: float, text: Any, on_map: OnMap) -> Tensor:
        """Averaged where windows overlap: a latent counts by its distance from the window's nearer end."""
        self.on_map = on_map
        total, weight = torch.zeros_like(z), torch.zeros(len(z), 1, 1, 1, dtype=z.dtype)
        for window, frames in enumerate(self._windows):
            self.window = window
            made = self.networks.velocity(z[frames.start : frames.stop], timestep, text)
            for place, frame in enumerate(frames):
                near = min(place, len(frames) - 1 - place) + 1
                total[frame] += near * made[place]
                weight[frame] += near
        return total / weight

    @property
    def _windows(self) -> list[range]:
        return [range(self.frames)] if self.windows is None else self.windows[0]

    # Fusion

    def _fused(
        self, step: int, source: Maps, mask: Tensor | None, own: Maps, window: int, name: str, probs: Tensor
    ) -> Tensor:
        own[window, name] = probs
        fusion = self.method.fusion
        if fusion is None:
            return probs
        if name.endswith("attn2"):
            return self._fused_words(fusion, step, source[window, name], probs)
        if not _within(fusion.self_window, step, self.method.steps):
            return probs
        if mask is None:
            return source[window, name]
        frames = self._windows[window]
        places = mask[frames.start : frames.stop].flatten()
        return torch.where(places[:, None], probs, source[window, name])

    def _fused_words(self, fusion: FusionConfig, step: int, source: Tensor, edited: Tensor) -> Tensor:
        places = self.networks.pads or len(self._ids(self.target))
        count = self.method.steps + 1  # as Prompt-to-Prompt counts
        opened = torch.tensor([_within(fusion.cross_window, step, count)] * places)
        for word, window in fusion.word_windows.items():
            opened[self._tokens_of(self.target, (word,))] = _within(window, step, count)
        factors = torch.ones(places, dtype=torch.float64)
        for word, factor in fusion.reweight.items():
            factors[self._tokens_of(self.target, (word,))] = factor
        fused = edited.clone()
        columns = self._replacement() if fusion.word_map == "replace" else self._refinement()
        for column in range(places):
            if opened[column]:
                shares = columns.get(column)
                handed = edited[..., column] if shares is None else sum(w * source[..., s] for s, w in shares.items())
                fused[..., column] = factors[column] * handed
        return fused  # masked padding gets nothing of either

    def _replacement(self) -> Mapping[int, dict[int, float]]:
        """By target column, the shares of source columns; columns that are missing stay the target's own."""
        columns: dict[int, dict[int, float]] = {}
        source, target = self._words(self.source), self._words(self.target)
        for old, new in zip(source, target, strict=True):
            for place, column in enumerate(new):
                same = len(old) == len(new)
                columns[column] = {old[place]: 1.0} if same else {each: 1 / len(new) for each in old}
        end, target_end = source[-1][-1] + 1, target[-1][-1] + 1
        behind = min(self._places(self.source) - end, self._places(self.target) - target_end)
        return columns | {target_end + i: {end + i: 1.0} for i in range(behind)}

    def _refinement(self) -> Mapping[int, dict[int, float]]:
        """Likewise: of each target token that of the source in the longest common subsequence."""
        source, target = self._ids(self.source)[:-1], self._ids(self.target)[:-1]
        columns = {j: {i: 1.0} for i, j in _common(source, target)}
        columns[len(target)] = {len(source): 1.0}
        return columns | {j: {j: 1.0} for j in range(len(target) + 1, self._places(self.target))}

    def _places(self, prompt: str) -> int:
        return self.networks.pads or len(self._ids(prompt))

    # Words

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self.networks.pipe.tokenizer(prompt).input_ids
        return ids

    def _words(self, prompt: str) -> list[list[int]]:
        """Places of each word's tokens: a mark begins each word."""
        words: list[list[int]] = []
        for place, piece in enumerate(self.networks.pipe.tokenizer.convert_ids_to_tokens(self._ids(prompt)[:-1])):
            if piece.startswith("▁"):
                words.append([])
            words[-1].append(place)
        return words

    def _tokens_of(self, prompt: str, wanted: Sequence[str]) -> list[int]:
        words = zip(prompt.split(), self._words(prompt), strict=True)
        return [token for word, tokens in words if word in wanted for token in tokens]

    # Masks

    def _attention_mask(self, source: Maps, step: int) -> Tensor | None:
        fusion, blending = self.method.fusion, self.method.blending
        fuses = fusion is not None and _within(fusion.self_window, step, self.method.steps)
        if blending is None or not blending.self_attention or not self.edited_words or not fuses:
            return None
        return self._mask(self._word_map(source, self._tokens_of(self.source, self.edited_words)), self.size)

    def _blends_latents(self, step: int) -> bool:
        blending = self.method.blending
        if blending is None or not self.edited_words:
            return False
        return _within(blending.latent_window, step, self.method.steps)

    def _word_map(self, maps: Maps, tokens: list[int]) -> Tensor:
        """Cross-attention of some tokens, summed, the mean over heads and layers: F,m,n."""
        owners = [0] * self.frames if self.windows is None else self.windows[1]
        blocks = self.method.blending.mask_blocks if self.method.blending else ()
        found: list[Tensor] = []
        for frame, owner in enumerate(owners):
            place = frame - self._windows[owner].start
            seen = [
                probs.unflatten(1, (len(self._windows[owner]), *self.size))[:, place][..., tokens].sum(-1)
                for (window, name), probs in maps.items()
                if window == owner and name.endswith("attn2") and (not blocks or int(name.split(".")[1]) in blocks)
            ]
            found.append(torch.cat(seen).mean(0))
        return torch.stack(found)

    def _mask(self, soft: Tensor, size: tuple[int, int]) -> Tensor:
        assert self.method.blending is not None
        grown = interpolate(max_pool2d(soft[:, None], 3, stride=1, padding=1), size=size, mode="nearest")[:, 0]
        mask: Tensor = grown > self.method.blending.threshold * grown.amax((1, 2), keepdim=True)
        return mask


def _within(window: tuple[float, float] | None, step: int, count: int) -> bool:
    return window is not None and int(window[0] * count) <= step < int(window[1] * count)


def _common(source: list[int], target: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs of places of a longest common subsequence; these prompts have one only."""
    longest = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i in reversed(range(len(source))):
        for j in reversed(range(len(target))):
            same = source[i] == target[j]
            longest[i][j] = longest[i + 1][j + 1] + 1 if same else max(longest[i + 1][j], longest[i][j + 1])
    i = j = 0
    while i < len(source) and j < len(target):
        if source[i] == target[j]:
            yield i, j
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1


def _kept(seen: Maps, window: int, name: str, probs: Tensor) -> Tensor:
    seen[window, name] = probs
    return probs


@contextmanager
def _every_map_made(run: NaiveEdit) -> Iterator[None]:
    """Attention processors that make their maps, while the context lasts."""
    layers = [
        (name, layer)
        for transformer in run.networks.transformers
        for name, layer in transformer.named_modules()
        if name.endswith(("attn1", "attn2"))
    ]
    own = [layer.processor for _, layer in layers]
    try:
        for name, layer in layers:
            layer.processor = _MapOfPlaces(run, name)
        yield
    finally:
        for (_, layer), processor in zip(layers, own, strict=True):
            layer.processor = processor


class _MapOfPlaces:
    """A diffusers attention processor for a batch of one."""

    def __init__(self, run: NaiveEdit, layer: str) -> None:
        self._run = run
        self._layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(context))
        heads = [x.unflatten(-1, (attn.heads, -1))[0] for x in (queries, keys, attn.to_v(context))]
        rotation = rotary_emb or image_rotary_emb
        if rotation is not None:
            heads[:2] = [_turned(x, *rotation) for x in heads[:2]]
        q, k, v = (x.transpose(0, 1) for x in heads)  # H,Q,D
        logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if attention_mask is not None:
            logits = logits + attention_mask[0]
        probs = self._run.on_map(self._run.window, self._layer, logits.softmax(-1))
        attended = torch.cat(list(probs @ v), -1)
        projected: Tensor = attn.to_out[0](attended[None])
        return projected


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Neighbouring channels are the parts of complex numbers, each turned by its angle: Q,H,D."""
    angles = torch.complex(cosines.double(), sines.double())[0].reshape(len(x), -1, x.shape[-1])[..., ::2]
    turned = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous()) * angles
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
