"""`fatezero convert`: make what this project loads of pickles, and of published Tune-A-Video checkpoints."""

from __future__ import annotations

from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.terminal import say


def convert(source: Path, out: Path) -> int:
    """Convert and say where the result is; returns 0.

    Args:
        source: a file of weights (*.ckpt, *.bin, *.pt), a folder in diffusers' layout that holds such files, or the
            folder of a published Tune-A-Video checkpoint.
        out: the *.safetensors file to make of a file, the folder to make of a folder.
    """
    from fatezero.diffusion.conversion import convert_tune_a_video
    from fatezero.diffusion.pickles import convert_pickle, convert_pickled_folder, is_image_folder

    if source.is_file():
        say(convert_pickle(source, out))
    elif not source.is_dir():
        raise UserError(f"There is no file or folder {source}: give one of this machine.")
    elif is_image_folder(source):
        say(convert_pickled_folder(source, out))
    else:
        say(convert_tune_a_video(source, out))
    return 0
