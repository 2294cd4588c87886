"""Who is preferred: win rates and Bradley–Terry scores of methods, with intervals over clips and raters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fatezero_eval.people.draws import Draws, ends
from fatezero_eval.tables.resampling import Interval

GHOST = 0.5
"""Wins, and losses, of every method against a ghost of average strength: a weak prior (half a vote each way) that keeps
the scores of methods finite that always win, and of methods that were never compared with one another."""
_TOLERANCE = 1e-10  # of log strengths
_MOST_STEPS = 200

Wins = npt.NDArray[np.float64]  # …,M,M: how often the row's method was preferred to the column's; a tie is half a win


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One answer of one rater on one pair of videos.

    Attributes:
        clip: the source clip.
        rater: who answered.
        trial: which pair of videos.
        first: a method.
        second: the other method.
        choice: 0 for the first, 1 for the second, None for no difference.
    """

    clip: str
    rater: str
    trial: str
    first: str
    second: str
    choice: int | None


@dataclass(frozen=True, kw_only=True)
class Preference:
    """How a method fared.

    Attributes:
        method: its name.
        strength: Bradley–Terry score: log odds against a method of average strength.
        win_rate: share of its votes that it won, ties as halves, in [0, 1]; None without votes.
        rank: one more than the number of methods that are clearly better: whose difference in strength has an interval
            above zero; None where there are too few clips for intervals.
        wins: votes for it.
        ties: votes for neither.
        losses: votes for others.
    """

    method: str
    strength: Interval
    win_rate: Interval | None
    rank: int | None
    wins: int
    ties: int
    losses: int


def preferences(votes: Sequence[Vote], methods: Sequence[str], draws: Draws) -> list[Preference]:
    """How each method fared, in the methods' order.

    Args:
        votes: on one question.
        methods: the M methods.
        draws: of the votes' clips and raters, for the intervals.
    """
    drawn_BMM = _drawn_wins(votes, methods, draws)
    wins_MM = count_wins(votes, methods)
    strengths_BM, strength_M = bradley_terry(drawn_BMM), bradley_terry(wins_MM)
    rates_BM, rate_M = _win_rates(drawn_BMM), _win_rates(wins_MM)
    ranks = _ranks(strengths_BM, draws)
    found = []
    for number, method in enumerate(methods):
        own = [vote for vote in votes if method in (vote.first, vote.second)]
        ties = sum(vote.choice is None for vote in own)
        wins = sum(vote.choice is not None and (vote.first, vote.second)[vote.choice] == method for vote in own)
        rates = rates_BM[:, number]
        rate = Interval(float(rate_M[number]), *ends(rates[np.isfinite(rates)], draws)) if own else None
        strength = Interval(float(strength_M[number]), *ends(strengths_BM[:, number], draws))
        counts = {"wins": wins, "ties": ties, "losses": len(own) - wins - ties}
        found.append(Preference(method=method, strength=strength, win_rate=rate, rank=ranks[number], **counts))
    return found


def count_wins(votes: Sequence[Vote], methods: Sequence[str]) -> Wins:
    """How often each method was preferred to each other, M,M."""
    wins_MM = np.zeros((len(methods), len(methods)))
    for vote in votes:
        _add(wins_MM, vote, methods)
    return wins_MM


def bradley_terry(wins: Wins) -> npt.NDArray[np.float64]:
    """Log strengths …,M whose mean is zero: P(i is preferred to j) = 1 / (1 + exp(s_j - s_i)).

    They maximise the likelihood of the wins (Bradley and Terry 1952) and of `GHOST` wins and losses of each against a
    ghost of strength 0. The likelihood is concave, and Newton's method climbs it, by steps of at most 1.

    Args:
        wins: …,M,M; a tie counts as half a win of each.
    """
    together = wins + np.swapaxes(wins, -1, -2)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(_MOST_STEPS):
        beats = _logistic(strengths[..., :, None] - strengths[..., None, :])
        ghost = _logistic(strengths)
        slope = (wins - together * beats).sum(axis=-1) + GHOST * (1 - 2 * ghost)
        spread = together * beats * (1 - beats)
        own = spread.sum(axis=-1) + 2 * GHOST * ghost * (1 - ghost)
        bend = own[..., None] * np.eye(wins.shape[-1]) - spread
        step = np.linalg.solve(bend, slope[..., None])[..., 0]
        longest = np.abs(step).max(axis=-1, keepdims=True)
        strengths = strengths + step / np.maximum(longest, 1)
        if longest.max(initial=0.0) < _TOLERANCE:
            break
    centred: npt.NDArray[np.float64] = strengths - strengths.mean(axis=-1, keepdims=True)
    return centred


def _logistic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    probability: npt.NDArray[np.float64] = 1 / (1 + np.exp(-x))
    return probability


def _drawn_wins(votes: Sequence[Vote], methods: Sequence[str], draws: Draws) -> Wins:
    """Wins in each draw, B,M,M: a vote counts as often as its clip times its rater was drawn."""
    clip_of, rater_of = ({name: i for i, name in enumerate(names)} for names in (draws.clips, draws.raters))
    wins = np.zeros((len(draws.clips), len(draws.raters), len(methods), len(methods)))
    for vote in votes:
        _add(wins[clip_of[vote.clip], rater_of[vote.rater]], vote, methods)
    flat = wins.reshape(len(draws.clips), -1)
    drawn = [
        of_raters @ (of_clips @ flat).reshape(len(draws.raters), -1)  # one at a time: memory stays flat
        for of_clips, of_raters in zip(draws.of_clips, draws.of_raters, strict=True)
    ]
    return np.reshape(drawn, (len(drawn), len(methods), len(methods)))


def _add(wins_MM: Wins, vote: Vote, methods: Sequence[str]) -> None:
    first, second = methods.index(vote.first), methods.index(vote.second)
    share = 0.5 if vote.choice is None else 1.0 - vote.choice
    wins_MM[first, second] += share
    wins_MM[second, first] += 1 - share


def _win_rates(wins: Wins) -> npt.NDArray[np.float64]:
    """Share of each method's votes that it won, …,M; NaN without votes."""
    won, lost = wins.sum(axis=-1), wins.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        rates: npt.NDArray[np.float64] = won / (won + lost)
    return rates


def _ranks(strengths_BM: npt.NDArray[np.float64], draws: Draws) -> list[int | None]:
    count = strengths_BM.shape[1]
    lows = [[ends(strengths_BM[:, j] - strengths_BM[:, i], draws)[0] for j in range(count)] for i in range(count)]
    return [None if np.isnan(row).any() else 1 + sum(low > 0 for low in row) for row in lows]
