"""What the benchmarks take. Light: importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from fatezero.config import KeyFrame


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Attributes:
        model: "medium" is a seeded random network of 35 million weights; "sd1" has Stable Diffusion 1.x's own
            configuration with random weights; "wan-1.3b" has Wan 2.1's, "wan-1.3b-block" one of its blocks, and
            "wan-small" 8 small ones; anything else is a checkpoint.
        height: rows of the frames.
        width: columns of the frames.
        frames: of the clip.
        steps: of inversion and edit.
        key_frames: frames that give keys and values of a UNet's self-attention, as in `fatezero edit`; by default
            each frame's own and the middle one.
        repeats: timed runs of each kind, taken in turn; a ratio is that of two runs of one turn.
        threads: of the CPU.
        sizes: sides of square frames at which the method is compared with the stock network; () measures none.
        lengths: clip lengths whose seconds a frame and peak memory are measured, each in its own process and in two
            steps; () measures none.
        scale: measure processes, resuming and the cache on the shipped model in place of all this; of the other
            options, frames and steps count.
        clip: measure the reading of this video file in place of all this; of the other options, repeats count.
    """

    model: str = "medium"
    height: int = 256
    width: int = 256
    frames: int = 5
    steps: int = 5
    key_frames: tuple[KeyFrame, ...] | None = None
    repeats: int = 3
    threads: int = 1
    sizes: tuple[int, ...] = ()
    lengths: tuple[int, ...] = (9, 33, 129)
    scale: bool = False
    clip: str | None = None
