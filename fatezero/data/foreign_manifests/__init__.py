"""Readers for other people's manifests: each yields entries in this project's field names.

What a benchmark says beyond those goes into `extras`, under its own names; what it asks of an editor in words is its
`instruction`.
"""
