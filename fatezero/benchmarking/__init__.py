"""What the method costs beside the bare network, and what processes and caches save."""
