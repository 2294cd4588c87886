"""What any input is to the rest: a size, a time for each frame, and a way to decode some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fatezero.errors import UserError, first_line, out_of_memory
from fatezero.system.terminal import shortened
from fatezero.types import Sound

Frame = npt.NDArray[np.uint8]  # H,W,3 RGB, 0..255

MAX_PIXELS = 64_000_000  # of a frame: twice 8K video; decoding takes a few times 192 MB
MAX_SIDE = 16_384  # of a frame: the most that the usual codecs can state; scaling holds width x old height
MAX_FRAMES = 2_000_000  # of a clip: nine hours at 60 a second; the index takes about 100 bytes for each


@dataclass(frozen=True)
class Source:
    """An opened input, of which nothing is held but the index.

    Attributes:
        path: file or folder.
        kind: what it is, such as "H.264 in mp4".
        height: rows, as shown (after the file's rotation).
        width: columns, as shown.
        times: seconds from the first frame to each frame; their number is the number of frames.
        duration: seconds from the first frame to the end of the last.
        fps: mean frames per second; None where the input states no time.
        decode: yields the frames of these indices, which never fall.
        reader: the sentence that says which library decodes these indices.
        notes: one sentence for each thing done to every frame.
        sound: of the whole file; None where it has none.
    """

    path: Path
    kind: str
    height: int
    width: int
    times: tuple[float, ...]
    duration: float
    fps: float | None
    decode: Callable[[Sequence[int]], Iterator[Frame]]
    reader: Callable[[Sequence[int]], str]
    notes: tuple[str, ...]
    sound: Sound | None = None


def check_frame_size(path: Path, height: int, width: int) -> None:
    """Refuse a frame that is too large, before it is decoded.

    Raises:
        UserError: a side is longer than `MAX_SIDE`, or there are more than `MAX_PIXELS`.
    """
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise UserError(
            f"{path}: frames of {width}x{height} pixels are too large (at most {MAX_PIXELS // 10**6} million, no side "
            f"above {MAX_SIDE}); scale it down with another program first."
        )


@contextmanager
def naming(path: Path | str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises, of many types for damaged files, into a sentence that names the file.

    Args:
        path: what is decoded.
        kind: what it should be: "a video", "an image".

    Raises:
        UserError: in place of any other exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever it is
        if out_of_memory(error):
            raise UserError(f"{path}: the memory does not suffice to decode it; make it smaller first.") from error
        reason = getattr(error, "strerror", None) or (str(error) if isinstance(error, OSError) else first_line(error))
        raise undecodable(path, kind, reason) from error


def undecodable(path: Path | str, kind: str, reason: str) -> UserError:
    """The sentence for a file that is not what it should be; nobody can tell whether it ever was."""
    said = shortened(" ".join(reason.split()).rstrip("."), 200)
    return UserError(f"{path} is not {kind} or is damaged ({said}); copy or download it again, or re-encode it.")


def on_white(rgba: npt.NDArray[np.uint8]) -> Frame:
    """Composites H,W,4 on white: what a browser shows of a transparent picture on an empty page."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


ON_WHITE = "Transparent pixels are shown on white."
