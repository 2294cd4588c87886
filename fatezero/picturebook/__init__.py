"""Picturebook: the embedded world, its clips with known truth, and the models trained on it."""
