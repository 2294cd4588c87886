"""Metrics for text-driven video editing whose numbers can be trusted.

Reads run folders and videos only; it never needs the editor. `scoring.evaluation` is the way in, `scoring.suite`
lists the metrics, `tables.statistics` holds the one function that averages, `tables.leaderboard_files` joins runs.
"""
