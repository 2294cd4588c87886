"""Scenes, and how they are painted."""
