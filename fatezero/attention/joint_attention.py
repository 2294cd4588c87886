"""Attention in which the places of images or of a clip and the tokens of a prompt are joined in one softmax.

Stable Diffusion 3, Flux, CogVideoX and HunyuanVideo. The edit's queries and keys of places are replaced by the
source's, while its queries and keys of the text and all its values stay its own (Shin et al., ICCV 2025). That is
attention of other queries to other keys, so that no map has to exist here either.

A batch is the branches: the source first (where it is run again beside the edit), then the unconditional branch (where
there is guidance), the edit last. Each is one row, of the places of all its frames, or a row for each of its frames.
A branch attends by itself, to as many tokens as its own prompt has: what pads it to the longest of the batch is not
seen.

Shape letters: F rows of a branch, P places, T tokens, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fatezero.attention.fusion import AttentionMap, QueriesAndKeys, fuse_self_attention
from fatezero.attention.processor import AttentionState, Call, CallFusion, attend, by_head, mask_of
from fatezero.attention.sites import Site
from fatezero.attention.transformer_attention import Rotation, rotated


@dataclass(frozen=True)
class Projections:
    """Queries, keys and values of places or tokens: rows,P,H,D or rows,T,H,D.

    Rows are those of all branches; queries and keys of the edit are left out where nothing reads its own map.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor

    def of(self, rows: slice, tokens: int | None = None) -> Projections:
        """Those of some rows, and of the first tokens alone."""
        return Projections(self.queries[rows, :tokens], self.keys[rows, :tokens], self.values[rows, :tokens])


class JointAttention:
    """A diffusers attention processor for one layer of joint attention."""

    def __init__(self, site: Site, state: AttentionState) -> None:
        self._site = site
        self._state = state

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,  # noqa: ARG002  (a branch sees no padding)
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> Any:
        """Attend: places rows,P,channels and text rows,T,channels in and out; or both in one, the text first."""
        call, site = self._state.call, self._site
        places, text = hidden_states, encoder_hidden_states
        if text is None:
            longest = max(call.prompt_places)
            text, places = hidden_states[:, :longest], hidden_states[:, longest:]
        attended, attended_text = attend_jointly(
            site,
            call,
            _of_places(attn, places, call.asking(site, places), image_rotary_emb),
            _of_text(attn, text),
        )
        if encoder_hidden_states is None:
            return torch.cat([attended_text, attended], dim=1)
        return _out(attn, attended, attended_text)


def attend_jointly(site: Site, call: Call, places: Projections, text: Projections) -> tuple[Tensor, Tensor]:
    """One layer's attention in a network call, recorded and fused as the call says.

    Args:
        site: the layer.
        call: the network call under way.
        places: of all branches' rows; queries and keys of the edit may be left out where nothing reads its own map.
        text: of all branches' rows, each padded to the longest prompt.

    Returns:
        What places and tokens have attended to, rows,P,channels and rows,T,channels; padding has zeros.
    """
    n, longest = len(places.values) // call.branches, text.values.shape[1]
    attended = []
    for branch, tokens in enumerate(call.prompt_places):
        rows = slice(branch * n, (branch + 1) * n)
        own, own_text = places.of(rows), text.of(rows, tokens)
        is_edit = branch == call.branches - 1
        fusion = call.fusion_of(site) if is_edit else None
        for recorder in call.recorders if is_edit else ():
            recorder.see(site, own.queries, own.keys, None, own_text.keys)
        source = None
        if fusion is not None:
            source = fusion.stored(site, None) if fusion.stored else QueriesAndKeys(places.queries[:n], places.keys[:n])
        joined = _attend(own, own_text, source, _mask(site, call, fusion, own_text))
        attended.append(pad(joined.flatten(2), (0, 0, 0, longest - tokens)))
    both = torch.cat(attended)
    return both[:, :-longest], both[:, -longest:]


def _attend(own: Projections, text: Projections, source: AttentionMap | None, mask: Tensor | None) -> Tensor:
    """Of one branch's places and tokens, F,(P + T),H,D; of the source's map of its places, where there is one."""
    values = torch.cat([own.values, text.values], dim=1)
    if source is None:
        return beside_text(QueriesAndKeys(own.queries, own.keys), text).apply(values)
    edited = None if mask is None else beside_text(QueriesAndKeys(own.queries, own.keys), text)
    return fuse_self_attention(edited, beside_text(source, text), values, mask)


def beside_text(places: AttentionMap, text: Projections) -> QueriesAndKeys:
    """The map of places and tokens, by queries and keys of places, perhaps the source's, and those of the text."""
    if not isinstance(places, QueriesAndKeys):
        raise RuntimeError("joint attention is fused by queries and keys: see budget.choose_backend")
    queries = torch.cat([places.queries, text.queries], dim=1)
    return QueriesAndKeys(queries, torch.cat([places.keys, text.keys], dim=1))


def _mask(site: Site, call: Call, fusion: CallFusion | None, text: Projections) -> Tensor | None:
    """M_t for one branch's places and tokens, bool F,(P + T): the text goes with the fused map."""
    mask_FP = None if fusion is None else mask_of(site, call, fusion, len(text.values))
    return None if mask_FP is None else pad(mask_FP, (0, text.values.shape[1]), value=False)


def _of_places(attn: Any, x: Tensor, asking: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Projections:
    """Of places, the queries and keys after their norms and rotations."""
    turn = None if rotation is None else _turn(rotation, x)
    queries = rotated(_normed(attn.norm_q, by_head(attn, attn.to_q(asking))), turn)
    keys = rotated(_normed(attn.norm_k, by_head(attn, attn.to_k(asking))), turn)
    return Projections(queries, keys, by_head(attn, attn.to_v(x)))


def _of_text(attn: Any, x: Tensor) -> Projections:
    """Of tokens, by the text's own weights where the layer has such. They are not rotated."""
    if getattr(attn, "add_q_proj", None) is None:
        return _of_places(attn, x, x, None)
    queries = _normed(attn.norm_added_q, by_head(attn, attn.add_q_proj(x)))
    keys = _normed(attn.norm_added_k, by_head(attn, attn.add_k_proj(x)))
    return Projections(queries, keys, by_head(attn, attn.add_v_proj(x)))


def _turn(rotation: tuple[Tensor, Tensor], places: Tensor) -> Rotation:
    """Of places, the last of all rotations: those of Flux's text are by an angle of zero, others have none."""
    cosines, sines = (part[-places.shape[1] :].to(places.device)[None, :, None] for part in rotation)
    return cosines, sines


def _normed(norm: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _out(attn: Any, places: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Through the layer's last projections, in place of which some blocks have one behind the layer."""
    to_out, to_text = (getattr(attn, name, None) for name in ("to_out", "to_add_out"))
    if getattr(attn, "add_q_proj", None) is None:
        to_text = to_out[0] if to_out is not None else None
    return places if to_out is None else to_out[0](places), text if to_text is None else to_text(text)


class RowAttention:
    """A diffusers attention processor for one layer of self-attention beside joint attention: of places alone."""

    def __init__(self, site: Site, state: AttentionState) -> None:
        self._site = site
        self._state = state

    def __call__(self, attn: Any, hidden_states: Tensor, **_: Any) -> Tensor:
        """Attend: rows,P,channels in and out."""
        call, site = self._state.call, self._site
        n = len(hidden_states) // call.branches
        of = _of_places(attn, hidden_states, call.asking(site, hidden_states), None)
        attended = attend(site, call, n, of.queries, of.keys, of.values)
        projected: Tensor = attn.to_out[0](attended.flatten(2))
        return projected
