"""Clips and requests, in and out. The ground floor shared with `fatezero_eval`: no torch, no Lightning."""
