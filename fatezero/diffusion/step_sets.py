"""Which of an edit's steps are guided, run the branch without a prompt, or reuse features; known without torch."""

from __future__ import annotations

from fatezero.attention.active_steps import active_steps
from fatezero.config import MethodConfig


def reused_steps(every: int, count: int) -> frozenset[int]:
    """Those of an edit's steps, the noisiest first, that reuse features: all but each `every`-th."""
    return frozenset(index for index in range(count) if index % every)


def guided_steps(method: MethodConfig, count: int) -> range:
    """Those of an edit's steps in which guidance acts."""
    return active_steps(method.guidance_window, count) if method.guidance_scale != 1 else range(0)


def unconditional_steps(method: MethodConfig, count: int) -> frozenset[int]:
    """Those of an edit's steps in which the branch without a prompt runs, for a network that is not told the scale.

    Where it runs in a step that reuses features, it has also run in the last whole step, which computed them.
    """
    asked = guided_steps(method, count)[:: method.guidance_every]
    return frozenset(asked) | {step - step % method.feature_reuse for step in asked}
