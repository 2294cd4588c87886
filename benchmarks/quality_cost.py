"""The quality-cost table of scored ablations: `python benchmarks/quality_cost.py RUN... --out FOLDER`.

Each run is one `fatezero ablate` (see experiments/quality-cost.yaml), perhaps with another --dtype; variants that runs
share are told apart by the run's name. Every variant is timed here again, on one clip of the first run: processor time
on the CPU, all variants in turn and that several times, so that other work on the machine counts for none of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fatezero.clips.video import read_clip
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.data.files import read_json
from fatezero.data.layout import result_records
from fatezero.data.manifest import request_from_json
from fatezero.diffusion.recommendations import with_settings
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import complain, say
from fatezero.types import EditRequest, Frames
from fatezero_eval.tables.cost_grids import cheapest_alike, costed_variants, pareto_front, quality_cost_grid
from fatezero_eval.tables.joining import Table, join
from fatezero_eval.tables.notation import markdown
from fatezero_eval.tables.pareto_plot import pareto_plot
from fatezero_eval.tables.scored_runs import ScoredRun, named_apart, read_scored_run, variants_of

QUALITY = "psnr/truth"  # what the front goes by


def main() -> int:
    """Time the variants, write `quality-cost.md` and `quality-cost.svg`, and say what is worth its cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `fatezero ablate`, the reference's first")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table and the figure")
    parser.add_argument("--frames", type=int, default=4, help="frames of the clip that is timed")
    parser.add_argument("--repeats", type=int, default=3, help="how often each variant is timed")
    options = parser.parse_args()
    try:
        _write(options.runs, options.out, options.frames, options.repeats)
    except UserError as error:
        complain(str(error))
        return 2
    return 0


def _write(folders: Sequence[Path], out: Path, frames: int, repeats: int) -> None:
    torch.set_num_threads(1)
    runs = named_apart([read_scored_run(folder) for folder in folders])
    table = _one_table(runs)
    request = request_from_json(_record(runs[0])["request"])
    clip = read_clip(request.clip).frames[:frames]
    work: dict[str, Callable[[], object]] = {}
    for run in runs:
        work |= _edits(run, request, clip)
    seconds = {name: taken / len(clip) for name, taken in _timed(work, repeats).items()}
    costed = costed_variants(table, seconds, QUALITY)
    differing = {name: _said(run.experiment.settings.get(name, {})) for run in runs for name in variants_of(run)}
    text = markdown(quality_cost_grid(table, costed, differing))
    replace_text(out / "quality-cost.md", text)
    replace_text(out / "quality-cost.svg", pareto_plot(costed, QUALITY))
    say(text)
    say("Pareto front, the cheapest first: " + ", ".join(one.variant for one in pareto_front(costed)))
    alike = cheapest_alike(table, costed) or "there are too few clips to tell"
    say(f"Cheapest that no metric finds worse than {table.reference}: {alike}")


def _one_table(runs: Sequence[ScoredRun]) -> Table:
    first, *others = join(runs, runs[0].experiment.reference)
    if others:
        raise UserError(f"The runs cannot be compared: {others[0].reason}; score them alike.")
    return first


def _record(run: ScoredRun) -> Mapping[str, Any]:
    """What one of a run's edits says of how it was made."""
    record: Mapping[str, Any] = read_json(next(iter(result_records(run.path))))
    return record


def _edits(run: ScoredRun, request: EditRequest, clip: Frames) -> dict[str, Callable[[], object]]:
    """An edit of a clip under each of a run's variants, as the run was made."""
    record = _record(run)
    device, dtype = record["runtime"]["device"].partition(":")[0], record["runtime"]["dtype"]
    editor = FateZero.load(
        ModelOptions(model=record["checkpoint"]["name"]),
        RuntimeConfig(device=device, dtype=dtype),
        report=lambda _: None,
    )

    def edit(method: MethodConfig) -> Callable[[], object]:
        return lambda: editor.edit(
            clip,
            request.source_prompt,
            request.target_prompt,
            edited_words=request.edited_words,
            target_words=request.target_words,
            method=method,
            progress=False,
        )

    methods = {name: with_settings(MethodConfig(), config, name) for name, config in run.experiment.configs.items()}
    return {name: edit(method) for name, method in methods.items()}


def _timed(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each piece of work: medians of rounds through all of them, after a round that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, edit in work.items():
            started = _now()
            edit()
            taken[name].append(_now() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def _now() -> float:
    """Seconds: of the processor without a GPU, so that other work does not count; else of the clock."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


if __name__ == "__main__":
    sys.exit(main())
