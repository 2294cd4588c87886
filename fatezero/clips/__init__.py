"""Clips in and out: what a player shows of a file, and files that a player shows."""
