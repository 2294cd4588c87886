"""Trainings by Lightning: steps that can be resumed, and Tune-A-Video."""
