"""Small previews: all clips of an edit side by side in one video, so that they cannot fall out of step."""

from __future__ import annotations

import io
import math
import tempfile
from base64 import b64encode
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fatezero.clips.video import probe, read_clip, write_video
from fatezero.errors import UserError
from fatezero.types import ClipSpec, CompanionSpec, Frames, Timing

HEIGHT = 160  # pixels of a preview, at most
TALL = 256  # the same on a page of few results
FEW = 100  # results, at most, so that a page stays a file that one can send
ATTENTION_HEIGHT = 80
CRF = 23  # of H.264
PICTURE_PIXELS = 2**26  # of an attention picture, at most
_BLOCK = 16  # a tile begins at a macroblock of its own, so that neighbours share none


@dataclass
class Media:
    """Files of the page, each once: equal content has one number."""

    texts: dict[str, int] = field(default_factory=dict)

    def add(self, content: bytes) -> int:
        """Number under which the page finds this content, as base64."""
        return self.texts.setdefault(b64encode(content).decode("ascii"), len(self.texts))


@dataclass
class TiledVideo:
    """Clips of one size as tiles of one video; equal clips share a tile.

    Attributes:
        height: rows of a tile.
        width: columns of a tile.
        clips: frames F,H,W,3 by their content.
    """

    height: int
    width: int
    clips: dict[bytes, Frames] = field(default_factory=dict)

    def add(self, spec: ClipSpec | CompanionSpec) -> tuple[int, int]:
        """Read a clip, or what lies beside one, at the tile's size.

        Returns:
            The tile's number and the clip's own number of frames.

        Raises:
            UserError: as `read_clip`.
        """
        frames = self.read(spec)
        return self.put(frames), len(frames)

    def read(self, spec: ClipSpec | CompanionSpec) -> Frames:
        """The frames F,H,W,3 of a clip, or of what lies beside one, at the tile's size.

        Raises:
            UserError: as `read_clip`.
        """
        if isinstance(spec, ClipSpec):
            return read_clip(replace(spec, height=self.height, width=self.width)).frames
        # which has the size of its clip, or of what is asked of it
        return np.stack([self._scaled(frame) for frame in read_clip(spec).frames])

    def put(self, frames: Frames) -> int:
        """The number of the tile that shows these frames F,H,W,3, which have the tile's size."""
        content = frames.tobytes()
        self.clips.setdefault(content, frames)
        return list(self.clips).index(content)

    def _scaled(self, frame: Frames) -> Frames:
        picture = Image.fromarray(frame).resize((self.width, self.height), Image.Resampling.BICUBIC)
        return np.asarray(picture)

    @property
    def frames(self) -> int:
        """Of the longest clip; the last frame of shorter ones is held."""
        return max(len(frames) for frames in self.clips.values())

    @property
    def columns(self) -> int:
        """Tiles in a row of the video, which is about as wide as high."""
        return max(1, round(math.sqrt(len(self.clips) * self._cell[0] / self._cell[1])))

    @property
    def _cell(self) -> tuple[int, int]:
        return math.ceil(self.height / _BLOCK) * _BLOCK, math.ceil(self.width / _BLOCK) * _BLOCK

    def times(self, timing: Timing) -> tuple[float, ...]:
        """When each frame is shown and the last ends, in seconds; beyond the clip's own, as long as its last."""
        if not isinstance(timing, tuple):
            return tuple(frame / timing for frame in range(self.frames + 1))
        own, last = timing[: self.frames + 1], timing[-1] - timing[-2]
        return (*own, *(own[-1] + last * more for more in range(1, self.frames + 2 - len(own))))

    def encode(self, timing: Timing, crf: int = CRF) -> bytes:
        """All tiles as one mp4, row by row, in a clip's timing; it holds no names and no other metadata."""
        (height, width), columns = self._cell, self.columns
        rows = math.ceil(len(self.clips) / columns)
        video = np.zeros((self.frames, rows * height, columns * width, 3), dtype=np.uint8)
        margins = ((0, height - self.height), (0, width - self.width), (0, 0))
        for number, frames in enumerate(self.clips.values()):
            top, left = number // columns * height, number % columns * width
            held = ((0, self.frames - len(frames)), *margins)
            video[:, top : top + height, left : left + width] = np.pad(frames, held, mode="edge")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tiles.mp4"
            write_video(path, video, self.times(timing) if isinstance(timing, tuple) else timing, crf=crf)
            return path.read_bytes()

    def layout(self) -> dict[str, int]:
        """Where the page finds tile n: cell n % columns, n // columns; its corner shows the clip."""
        height, width = self._cell
        return {
            "width": self.width,
            "height": self.height,
            "cell_width": width,
            "cell_height": height,
            "columns": self.columns,
            "frames": self.frames,
        }


def tiled_video_of(clip: ClipSpec, height: int = HEIGHT) -> tuple[TiledVideo, Timing]:
    """An empty video of tiles in the shape of a clip, at most `height` pixels high, and the clip's timing.

    Raises:
        UserError: the clip cannot be read.
    """
    info = probe(clip)
    height = min(height, info.height)
    return TiledVideo(height, max(1, round(info.width * height / info.height))), info.timing


def attention_strip(path: Path) -> bytes:
    """The lower row of an attention picture (see `fatezero.viewing.result_files.attention_picture`) as a small webp.

    Raises:
        UserError: the picture is damaged.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.width * picture.height > PICTURE_PIXELS:
                raise ValueError(f"it has {picture.width}x{picture.height} pixels")
            strip = picture.convert("RGB").crop((0, picture.height // 2, picture.width, picture.height))
        height = min(ATTENTION_HEIGHT, strip.height)
        width = max(1, round(strip.width * height / strip.height))
        small = strip.resize((width, height), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        small.save(content, "webp", quality=70, method=4)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not readable as a picture ({error}); edit the clip again.") from error
    return content.getvalue()
