"""FateZero: text-driven video editing without training, on any Stable Diffusion checkpoint."""

__version__ = "0.1.0"
