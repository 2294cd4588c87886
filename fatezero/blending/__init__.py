"""Masks from cross-attention, and latents blended with them."""
