"""Clips with known motion, their true edits, and the manifests of both."""
