"""What there is to compare: the results of several methods on the same edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fatezero.data.manifest import Manifest
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec
from fatezero_eval.people.study_options import TheirVideos
from fatezero_eval.scoring.clip_names import unit_name
from fatezero_eval.scoring.matching import match_videos
from fatezero_eval.scoring.scoring_jobs import FinishedJobs, ScoringJob, Truths, finished_jobs


@dataclass(frozen=True)
class Rivals:
    """Results by edit and method.

    Attributes:
        of_edit: by edit, its results by method, of several seeds the first; in the manifest's order where there is one.
        problems: a sentence for each thing that is left out.
        notes: a sentence for each video that is not of its source's size or length.
    """

    of_edit: dict[str, dict[str, ScoringJob]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """All methods, in order of appearance."""
        return list(dict.fromkeys(method for results in self.of_edit.values() for method in results))

    def add(self, method: str, job: ScoringJob) -> None:
        """Take a result in, if it is an edit of the same clip to the same prompt as its rivals."""
        own = self.of_edit.setdefault(job.request.id, {})
        if own and _asked(next(iter(own.values()))) != _asked(job):
            self.problems.append(
                f"{method}/{job.request.id}: not shown, since other results have another clip or prompt."
            )
        else:
            own.setdefault(method, job)


def collect(runs: Sequence[Path], theirs: Sequence[TheirVideos], manifest: Manifest | None) -> Rivals:
    """The results of runs, and of folders of anyone's videos.

    A method is called as its variant, and `<run>/<variant>` where several runs have one of that name.

    Args:
        runs: run folders.
        theirs: other methods.
        manifest: the edits; None takes what the runs' records say.

    Raises:
        UserError: a run cannot be read, two methods have one name, or others' videos come without a manifest.
    """
    truths = Truths(manifest, None, Path())  # a study shows no truth, so none is rendered
    read = {run: finished_jobs(run, truths) for run in runs}
    variants = Counter(name for found in read.values() for name in {job.variant for job in found.jobs})
    rivals = Rivals({request.id: {} for request in manifest.requests} if manifest else {})
    names: list[str] = []
    for run, found in read.items():
        called = {
            name: f"{run.resolve().name}/{name}" if variants[name] > 1 else name
            for name in dict.fromkeys(job.variant for job in found.jobs)
        }
        names += called.values()
        _add_run(rivals, found, called)
    for one in theirs:
        names.append(one.method)
        if manifest is None:
            raise UserError(f"The videos of {quoted(one.method)} need --manifest, which says what they are edits of.")
        _add_videos(rivals, one, manifest)
    double = next((name for name, count in Counter(names).items() if count > 1), None)
    if double is not None:
        raise UserError(f"Two methods are called {quoted(double)}: name each run once, and rename one of them.")
    return rivals


def _asked(job: ScoringJob) -> tuple[str, str]:
    return unit_name(job.request), job.request.target_prompt


def _add_run(rivals: Rivals, found: FinishedJobs, called: dict[str, str]) -> None:
    rivals.problems.extend(f"{name}: {reason}" for name, reason in found.left_out.items())
    for job in sorted(found.scorable, key=lambda job: job.request.seed):
        rivals.add(called[job.variant], job)


def _add_videos(rivals: Rivals, theirs: TheirVideos, manifest: Manifest) -> None:
    """Whatever their size and length: a page scales them to the source's, and holds the last frame of shorter ones."""
    requests = {request.id: request for request in manifest.requests}
    report = match_videos(manifest, theirs.folder, resize=True, trim=True)
    for match in report.matches:
        if match.problem or match.video is None or match.edited is None:
            rivals.problems.append(f"{theirs.method}/{match.edit}: {match.problem}")
            continue
        shown = match.edited
        edited = ClipSpec(path=str(match.video), fit=match.fit, height=shown.height, width=shown.width)
        rivals.add(theirs.method, ScoringJob(request=requests[match.edit], variant=theirs.method, edited=edited))
        for what in ("frames", "height", "width"):
            own, asked = getattr(match.edited, what), getattr(match.source, what, None)
            if asked is not None and own != asked:
                rivals.notes.append(f"{theirs.method}/{match.edit}: {own} {what}, the source {asked}")
