"""The names of the files that evaluations write, beside those of a run folder (`fatezero.data.layout`)."""

from __future__ import annotations

# in a run folder
PAGE = "index.html"
LEADERBOARD = "leaderboard"  # .md, .csv, .json and .html
DIFFERENCES = "differences"  # .md, .csv and .json
# in the output folder of an evaluation, beside the rows
PROVENANCE = "provenance.json"
ITEMS = "items"  # one file for each finished job
FAILED = ".failed"  # why a job has none
LOG = ".log"  # the trace of an error that nobody foresaw, beside the reason
TRUTH = "truth"
CACHE = "cache"
