"""Which frames give keys and values to which (FateZero, "Spatial-Temporal Self-Attention"), and how a clip is cut.

Shape letters: F frames, J key frames per frame, H heads, N tokens of a layer, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fatezero.config import ANCHORS, KeyFrame
from fatezero.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Frames that one network call sees.

    Attributes:
        frames: their indices in the clip, rising: the chunk's own and the anchors.
        own: positions in `frames` of those whose result is kept.
    """

    frames: tuple[int, ...]
    own: tuple[int, ...]


def middle_frame(clip_length: int) -> int:
    """The middle of n frames, (n - 1) // 2."""
    return (clip_length - 1) // 2


def key_frame_indices(
    key_frames: Sequence[KeyFrame], frame: int, clip_length: int, middle: int | None = None
) -> list[int]:
    """Frames that frame attends to, in order; offsets stop at the ends.

    With `middle`, these are frames of a segment, and it is the index of the whole clip's middle frame among them.
    """
    middle = middle_frame(clip_length) if middle is None else middle
    named = {"self": frame, "first": 0, "middle": middle, "last": clip_length - 1}
    return [named[k] if isinstance(k, str) else min(max(frame + k, 0), clip_length - 1) for k in key_frames]


def key_positions(
    key_frames: Sequence[KeyFrame], chunk: Chunk, clip_length: int, middle: int | None = None
) -> Tensor | None:
    """Positions in the chunk of every frame's key frames, int64 F,J; None where each frame sees only itself.

    In a chunk, the frames carried as anchors see themselves and the anchors, exactly as in the whole clip.
    """
    if all(k in ("self", 0) for k in key_frames):
        return None
    import torch  # noqa: PLC0415  (a second to import, which counting frames need not wait for)

    position = {frame: i for i, frame in enumerate(chunk.frames)}
    rows = [key_frame_indices(key_frames, frame, clip_length, middle) for frame in chunk.frames]
    return torch.tensor([[position[k] for k in row] for row in rows])


def gather_key_frames(x: Tensor, positions_FJ: Tensor | None) -> Tensor:
    """Lay the key frames' tokens side by side for every frame.

    Args:
        x: (branches * F),N,H,D keys or values; of no branch too, where none asks with its own.
        positions_FJ: from `key_positions`, on x's device; None returns x as it is.

    Returns:
        (branches * F),(J * N),H,D, key frames in the order of the positions.
    """
    if positions_FJ is None:
        return x
    frames, key_frames = positions_FJ.shape
    by_branch = x.view(len(x) // frames, frames, *x.shape[1:])  # branches,F,N,H,D
    gathered = by_branch.index_select(1, positions_FJ.flatten())
    return gathered.view(len(x), key_frames * x.shape[1], *x.shape[2:])


def anchor_frames(key_frames: Sequence[KeyFrame], clip_length: int, middle: int | None = None) -> set[int]:
    """The frames that all others attend to."""
    return {key_frame_indices([k], 0, clip_length, middle)[0] for k in key_frames if k in ANCHORS}


def cut_into_chunks(
    clip_length: int,
    key_frames: Sequence[KeyFrame],
    norm_scope: Literal["clip", "frame"],
    chunk: int | None,
    middle: int | None = None,
) -> tuple[Chunk, ...]:
    """Cut a clip into chunks that give the result of the whole.

    Args:
        clip_length: frames in the clip.
        key_frames: as in `MethodConfig`.
        norm_scope: as in `MethodConfig`.
        chunk: own frames of a chunk; None is 16 where the clip can be cut, otherwise all.
        middle: index of the whole clip's middle frame among these, where they are a segment of it.

    Raises:
        UserError: if a chunk is asked for and frames meet in other ways than through the anchors.
    """
    chained = [k for k in key_frames if isinstance(k, int) and k != 0]
    whole = Chunk(tuple(range(clip_length)), tuple(range(clip_length)))
    if norm_scope == "clip" or chained:
        if chunk is None or chunk >= clip_length:
            return (whole,)
        reason = "norm_scope is 'clip'" if norm_scope == "clip" else f"key frame {chained[0]} is an offset"
        raise UserError(
            f"A clip of {clip_length} frames cannot be cut into chunks of {chunk} because {reason}, which ties all its "
            "frames together: use norm_scope 'frame' and key frames of self, first, middle, last, or leave chunk out."
        )
    size = 16 if chunk is None else chunk
    anchors = anchor_frames(key_frames, clip_length, middle)
    chunks = []
    for start in range(0, clip_length, size):
        own = range(start, min(start + size, clip_length))
        frames = tuple(sorted(anchors.union(own)))
        chunks.append(Chunk(frames, tuple(i for i, f in enumerate(frames) if f in own)))
    return tuple(chunks)
