"""What every process that edits needs: the fork server imports it once, and each process begins with it."""

from __future__ import annotations

from fatezero.system.importing import importing

with importing():
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    import fatezero.lightning.writers  # noqa: F401
