"""Manifests and requests, stores, files. With `clips` the floor shared with `fatezero_eval`: no torch, no Lightning."""
