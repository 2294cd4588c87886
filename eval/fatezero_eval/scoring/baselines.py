"""What stands beside every method: the source judged by its own prompt, and handed in as the edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.scoring.scoring_jobs import ScoringJob


def baselines(jobs: Sequence[ScoringJob]) -> list[ScoringJob]:
    """For each edit with a source once: the source judged by its own prompt, and handed in as the edit."""
    found = {}
    source, no_edit = BASELINES
    for job in jobs:
        request = job.request
        if not request.has_source:
            continue
        # of the source it is asked to show what it shows, rather than what the edit should show
        own = replace(
            request,
            source_prompt=request.target_prompt,
            target_prompt=request.source_prompt,
            edited_words=request.target_words,
            target_words=request.edited_words,
        )
        asked = job.questions and job.questions.of_the_source
        unedited = replace(job, edited=request.clip, own_mask=None, notes="")
        found[source, request.id, request.seed] = replace(
            unedited, request=own, variant=source, mask=None, target_mask=None, true_edit=None, questions=asked
        )
        found[no_edit, request.id, request.seed] = replace(unedited, variant=no_edit)
    return [found[key] for key in sorted(found, reverse=True)]
