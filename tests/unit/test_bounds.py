"""Numbers of settings are numbers, and within what can be done."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest

from fatezero.commands.work_options import WorkOptions
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.errors import UserError
from fatezero.training.tuning_config import TuningConfig

CASES: list[tuple[type, dict[str, Any], str]] = [
    *((MethodConfig, {"steps": value}, "steps is") for value in (0, 1001, nan, True, "x" * 10**5)),
    *((MethodConfig, {"guidance_scale": value}, "guidance_scale") for value in (0.5, nan, inf, 1e9)),
    *((MethodConfig, {"sdedit_strength": value}, "sdedit_strength") for value in (0, nan, 2)),
    *((MethodConfig, {"prompt_contexts": value}, "prompt_contexts is") for value in (0, 17, nan)),
    (MethodConfig, {"key_frames": (10**12,)}, "key_frames is"),
    (MethodConfig, {"key_frames_min_width": -1}, "key_frames_min_width is"),
    *((FusionConfig, {"cross_window": value}, "cross_window is") for value in ((nan, 1), (0, nan), (0, inf))),
    (FusionConfig, {"word_windows": {"jeep": (0, nan)}}, "word_windows"),
    (FusionConfig, {"word_windows": {" ": (0, 1)}}, "names the word ' '"),
    *((FusionConfig, {"reweight": {"jeep": value}}, "reweight") for value in (nan, inf, 1e30)),
    (FusionConfig, {"reweight": {"": 1}}, "names the word ''"),
    *((FusionConfig, {"min_downsampling": value}, "min_downsampling is") for value in (0, nan, 10**9)),
    *((BlendingConfig, {"threshold": value}, "threshold is") for value in (-0.1, 1.1, nan, inf)),
    (BlendingConfig, {"mask_downsampling": 10**9}, "mask_downsampling is"),
    *((RuntimeConfig, {"memory_gb": value}, "memory_gb is") for value in (-1, nan, inf)),
    *((RuntimeConfig, {"chunk": value}, "chunk is") for value in (0, nan, 10**12)),
    *((WorkOptions, {"threads": value}, "--threads is") for value in (0, 100_000)),
    *((WorkOptions, {"disk_gb": value}, "--disk-gb is") for value in (0, nan, inf)),
    (WorkOptions, {"devices": 10**9}, "--devices is"),
    *((TuningConfig, {"learning_rate": value}, "--learning-rate is") for value in (0, nan, inf)),
    *((TuningConfig, {"class_weight": value}, "--class-weight is") for value in (-1, nan, inf)),
    *((TuningConfig, {"steps": value}, "--steps is") for value in (0, nan, 10**12)),
    *((TuningConfig, {"seed": value}, "--seed is") for value in (-1, 2**64)),
    (TuningConfig, {"threads": 100_000}, "--threads is"),
    (TuningConfig, {"rank": 10**12}, "--rank is"),
]


@pytest.mark.parametrize(("kind", "values", "sentence"), CASES)
def test_out_of_bounds_is_a_sentence(kind: type, values: dict[str, Any], sentence: str) -> None:
    one = {"clip": "c.mp4", "prompt": "a jeep"} if kind is TuningConfig else {}
    with pytest.raises(UserError, match=sentence) as refused:
        kind(**one, **values)
    assert len(str(refused.value)) < 400


def test_numbers_of_numpy_are_numbers() -> None:
    MethodConfig(steps=np.int64(3), guidance_scale=np.float32(2))  # type: ignore[arg-type]
