"""What edits ask of the source's attention."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What edits of a clip will ask of the source's attention.

    Attributes:
        sites: fused layers.
        self_steps: inversion steps whose self-attention, and that of fused temporal and joint layers, is asked for.
        cross_steps: inversion steps whose cross-attention is asked for.
    """

    sites: frozenset[str] = frozenset()
    self_steps: frozenset[int] = frozenset()
    cross_steps: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sites and (self.self_steps or self.cross_steps))

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.sites | other.sites, self.self_steps | other.self_steps, self.cross_steps | other.cross_steps)

    def __le__(self, other: Needs) -> bool:
        """Whether `other` covers all of it."""
        return self | other == other
