"""Metrics for text-driven video editing whose numbers can be trusted.

Reads run folders and videos only; it never needs the editor. `evaluate` is the way in, `suite` lists the
metrics, `statistics` holds the one function that averages, `leaderboard` joins runs.
"""
