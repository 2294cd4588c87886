"""Which jobs share an inversion, what they cost, and who does them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fatezero.attention.mask_layers import MaskLayers
from fatezero.config import MethodConfig
from fatezero.diffusion.step_sets import reused_steps, unconditional_steps
from fatezero.runs.jobs import EditJob, InversionGroup, clip_length

OUTERMOST_SHARE = 0.3  # of a UNet's work, about: 0.38 of the operations in Stable Diffusion 1.x, 0.15 in Picturebook


def share_inversions(jobs: Iterable[EditJob]) -> list[InversionGroup]:
    """Put jobs together that can share an inversion, in order of first appearance.

    Jobs that make masks at different layers cannot; those that make none join any.
    """
    by_basis: dict[object, dict[MaskLayers | None, list[EditJob]]] = {}
    for job in jobs:
        basis = (job.checkpoint, job.request.clip, job.segment, job.request.source_prompt, job.target.basis)
        by_basis.setdefault(basis, {}).setdefault(job.target.mask_layers, []).append(job)
    groups = []
    for by_layer in by_basis.values():
        unmasked = by_layer.pop(None, [])
        first, *others = by_layer.values() or [[]]
        groups += [InversionGroup(tuple(first + unmasked)), *(InversionGroup(tuple(group)) for group in others)]
    return groups


def cost(group: InversionGroup) -> int:
    """Work of a group in frames through the network: inversion, then each edit with its unconditional branch."""
    job, first = group.jobs[0], group.jobs[0].method
    frames = len(job.segment.frames(first)) if job.segment else clip_length(job.request.clip)
    inversion = sum(_shares(first, first.steps)) if first.inverts else 0.0
    return round(frames * (inversion + sum(_edit_cost(job.method) for job in group.jobs)))


def _edit_cost(method: MethodConfig) -> float:
    """Work of an edit in network calls of a branch."""
    count = method.edit_steps
    unconditional = unconditional_steps(method, count)
    calls = 1 if method.flow_edit is None else 2 * method.flow_edit.n_avg  # FlowEdit asks about source and target
    return calls * sum(share * (1 + (index in unconditional)) for index, share in enumerate(_shares(method, count)))


def _shares(method: MethodConfig, count: int) -> list[float]:
    """How much of the UNet each step computes."""
    reused = reused_steps(method.feature_reuse, count)
    return [OUTERMOST_SHARE if index in reused else 1.0 for index in range(count)]


def spread(groups: Sequence[InversionGroup], workers: int) -> list[list[InversionGroup]]:
    """Share groups among workers so that they finish together: costliest first, each to the least loaded worker.

    A group that is more than its fair share is cut between its jobs, and each part inverts for itself. (Graham's
    longest-processing-time rule: at most 4/3 of the best possible.)
    """
    fair = sum(cost(group) for group in groups) / workers
    parts = [part for group in groups for part in _cut(group, fair)]
    costs = [cost(part) for part in parts]
    shares: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for index in sorted(range(len(parts)), key=lambda i: -costs[i]):
        worker = load.index(min(load))
        shares[worker].append(index)
        load[worker] += costs[index]
    return [[parts[index] for index in sorted(share)] for share in shares]


def _cut(group: InversionGroup, fair: float) -> list[InversionGroup]:
    if len(group.jobs) == 1 or cost(group) <= fair:
        return [group]
    half = len(group.jobs) // 2
    return _cut(InversionGroup(group.jobs[:half]), fair) + _cut(InversionGroup(group.jobs[half:]), fair)
