"""Does the edited clip show what the target prompt says?

Shapes: F frames, D width of the shared image-text space. Embeddings are unit length; every function returns
a float64 scalar for one clip, NaN where the metric is undefined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def text_alignment(edited_FD: Tensor, target_D: Tensor) -> Tensor:
    """100 times the mean cosine of the frames and the target prompt, in [-100, 100].

    The released forms: torchmetrics' CLIPScore without its clamp at 0, RAVE's CLIP-Text times 100.
    """
    return mean_defined(100 * (edited_FD.double() @ target_D.double()))


def inside_alignment(edited_FD: Tensor, target_D: Tensor) -> Tensor:
    """100 times the mean cosine of the frames and the target prompt, each frame's at least 0; in [0, 100].

    Of frames that are black outside the edit mask this is PnPInversion's CLIP similarity of the edited part.

    Source: PnPInversion, `calculate_clip_similarity` with a mask: torchmetrics' CLIPScore of one image.
    """
    return mean_defined(100 * (edited_FD.double() @ target_D.double()).clamp(min=0))


def frame_accuracy(edited_FD: Tensor, source_D: Tensor, target_D: Tensor) -> Tensor:
    """Share of frames at least as close to the target prompt as to the source prompt; a tie is a success.

    Source: FateZero, section 4.2, and its `CLIP/frame_acc_tem_con.py` (`>=` on the softmax of both).
    """
    edited = edited_FD.double()
    return mean_defined((edited @ target_D.double() >= edited @ source_D.double()).double())


def directional_similarity(edited_FD: Tensor, clip_FD: Tensor, source_D: Tensor, target_D: Tensor) -> Tensor:
    """Mean over the defined frames of `direction_of_frames`."""
    return mean_defined(direction_of_frames(edited_FD, clip_FD, source_D, target_D))


def direction_of_frames(edited_FD: Tensor, clip_FD: Tensor, source_D: Tensor, target_D: Tensor) -> Tensor:
    """Cosine between the change of each frame and the change of the prompt, F in [-1, 1].

    NaN for frames whose embedding did not change; for all of them if the prompts are alike.

    Args:
        edited_FD: embeddings of the edited frames.
        clip_FD: embeddings of the source frames.
        source_D: embedding of the source prompt.
        target_D: embedding of the target prompt.

    Source: StyleGAN-NADA, section 4.1; used for edits by InstructPix2Pix, section 4.1.
    """
    change_FD = edited_FD.double() - clip_FD.double()
    wish_D = target_D.double() - source_D.double()
    cosine_F: Tensor = change_FD @ wish_D / (change_FD.norm(dim=-1) * wish_D.norm())  # 0/0 is NaN
    return cosine_F


def pick_score(edited_FD: Tensor, target_D: Tensor, logit_scale: Tensor) -> Tensor:
    """Mean PickScore of the frames: exp(logit scale) times the cosine with the target prompt.

    Args:
        edited_FD: PickScore image embeddings.
        target_D: PickScore embedding of the target prompt.
        logit_scale: scalar, PickScore's learnt scale before the exponential.

    Source: PickScore (Kirstain et al. 2023), used by the TGVE competition's `scripts/run_eval.py`.
    """
    return mean_defined(logit_scale.double().exp() * (edited_FD.double() @ target_D.double()))


TEXT_ALIGNMENT = MetricFamily("TextAlignment", text_alignment, higher_is_better=True)
FRAME_ACCURACY = MetricFamily("FrameAccuracy", frame_accuracy, higher_is_better=True)
DIRECTIONAL_SIMILARITY = MetricFamily("DirectionalSimilarity", directional_similarity, higher_is_better=True)
PICK_SCORE = MetricFamily("PickScore", pick_score, higher_is_better=True)
TextAlignment: type[ClipMean]
FrameAccuracy: type[ClipMean]
DirectionalSimilarity: type[ClipMean]
PickScore: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, TEXT_ALIGNMENT, FRAME_ACCURACY, DIRECTIONAL_SIMILARITY, PICK_SCORE)
