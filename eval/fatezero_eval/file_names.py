"""The names of the files that evaluations write, beside those of a run folder (`fatezero.data.layout`)."""

from __future__ import annotations

# in a run folder
PAGE = "index.html"
LEADERBOARD = "leaderboard"  # .md, .csv, .json and .html
DIFFERENCES = "differences"  # .md, .csv and .json
TRUST = "trust"  # .md, .csv, .json and .svg
PREFERENCES = "preferences"  # .csv
WEIGHTED = "weighted"  # .md, .csv, .json and .svg
# in the output folder of an evaluation, beside the rows
SET_DISTANCES = "set_distances.csv"
PROVENANCE = "provenance.json"
ITEMS = "items"  # one file for each finished job
FAILED = ".failed"  # why a job has none
LOG = ".log"  # the trace of an error that nobody foresaw, beside the reason
SAID = ".said"  # what a model answered about a job, beside its rows
ANSWERS = "answers.jsonl"  # the same of all jobs
TRUTH = "truth"
CACHE = "cache"
# in the folder of a study
STUDY_KEY = "study-key.json"
VOTES = "votes"  # .md, .csv, .json and .html
