"""How many clips are scored in a minute, and where does the time go?

    python benchmarks/scoring.py [--edits 1] [--frames 16] [--metrics NAME ...]

Spoils the first true edits of each category of Picturebook-Bench in all known ways (`fatezero degrade`), which makes a
run of many versions of few clips without an edit, scores it from nothing with the shipped judge, and prints CPU
seconds by stage. Each second counts for the innermost stage at work. Loading networks is left out; reading the
manifest and rendering its truth are in.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

from fatezero.commands.degrade import degrade
from fatezero.picturebook.benchmark import truth
from fatezero.shipped import judge_location
from fatezero.system.publishing import scratch_folder
from fatezero.system.terminal import say
from fatezero_eval.metrics import fidelity, warp_error, warping
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import OpenClip
from fatezero_eval.networks.flow import Dis
from fatezero_eval.options import PICTUREBOOK_CLIP, EvaluateRun
from fatezero_eval.scoring import evaluation
from fatezero_eval.scoring.footage import Reel
from fatezero_eval.scoring.scorer import Scorer

MANIFEST = Path(__file__).parents[1] / "datasets" / "picturebook" / "manifest.yaml"
STAGES: dict[str, list[tuple[Any, str]]] = {
    "reading clips": [(Reel, "_next")],
    "judge": [(OpenClip, "images"), (OpenClip, "texts")],
    "flow": [(Dis, "__call__")],
    "warping": [(warping, "warp"), (warp_error, "warp"), (warp_error, "occluded")],
    "SSIM": [(fidelity, "similarity_map"), (warp_error, "similarity_map")],
    "cache of embeddings and flows": [(ArrayCache, "get")],
    "other metrics": [(Scorer, "__call__")],
    "fingerprints and rows": [(evaluation, "fingerprint"), (evaluation, "write_rows"), (Scorer, "_keep")],
    "manifest and truth": [(evaluation, "named_manifest"), (truth, "write_truth")],
    "loading networks": [(evaluation, "load_scorer")],
}


class Stages:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._at_work = ["rest"]
        self._since = time.process_time()

    def turn(self) -> None:
        """Count the time since the last turn for the innermost stage at work."""
        now = time.process_time()
        self.seconds.update({self._at_work[-1]: now - self._since})
        self._since = now

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Have a function of a module or class count its time from now on."""
        function = getattr(owner, name)

        @wraps(function)
        def timed(*values: Any, **named: Any) -> Any:
            self.turn()
            self._at_work.append(stage)
            try:
                return function(*values, **named)
            finally:
                self.turn()
                self._at_work.pop()

        setattr(owner, name, timed)


def measure(run: Path, metrics: tuple[str, ...]) -> tuple[int, Counter[str]]:
    """Score a run from nothing; the number of results, baselines included, and CPU seconds by stage."""
    stages = Stages()
    for stage, functions in STAGES.items():
        for owner, name in functions:
            stages.watch(owner, name, stage)
    judge, out = judge_location(PICTUREBOOK_CLIP), run.with_name("evaluation")
    options = EvaluateRun(run=run, manifest=str(MANIFEST), judge=judge, metrics=metrics, out=out)
    stages.turn()
    stages.seconds.clear()
    found = evaluation.evaluate_run(options, truth.write_truth)
    stages.turn()
    del stages.seconds["loading networks"]
    return len({(row.variant, row.edit, row.seed) for row in found.rows}), stages.seconds


def main() -> None:
    """Make the run, score it and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--edits", type=int, default=1, help="of each category, 1 to 12")
    parser.add_argument("--frames", type=int, default=16, help="of each clip")
    parser.add_argument("--metrics", nargs="*", default=(), help="names or patterns; the default suite without")
    options = parser.parse_args()
    with scratch_folder() as folder:
        degrade(str(MANIFEST), out=folder / "run", edits=options.edits, frames=options.frames)
        results, seconds = measure(folder / "run", tuple(options.metrics))
    total = seconds.total()
    each = total / results
    say(f"{results} results of {options.frames} frames: {60 / each:.0f} a CPU minute, {1000 * each:.0f} ms each")
    say("\n| stage | CPU seconds | share |\n|---|---:|---:|")
    for stage, spent in seconds.most_common():
        say(f"| {stage} | {spent:.2f} | {spent / total:.0%} |")


if __name__ == "__main__":
    main()
