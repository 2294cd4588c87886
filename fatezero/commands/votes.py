"""`fatezero votes`: what the answers to a study say."""

from __future__ import annotations

from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.importing import importing
from fatezero.system.terminal import complain, say


def votes(
    study: Path,
    answers: tuple[Path, ...],
    *,
    runs: tuple[Path, ...] = (),
    attention: float = 0.75,
    out: Path | None = None,
) -> int:
    """Join the answers, write the tables and print them in short.

    Args:
        study: the folder that fatezero study wrote, with its key.
        answers: the files that raters sent, or folders of them.
        runs: scored runs, to set automatic metrics beside the votes; by default those of the study.
        attention: share of a rater's checks that are right, at least, for the votes to count.
        out: where the tables go; the study's folder by default.

    Returns:
        0, or 1 if an answer file or a run could not be read and is left out.

    Raises:
        UserError: there is no key, or no vote that counts.
    """
    with importing():
        from fatezero_eval.people.polls import conclude
        from fatezero_eval.people.votes_files import overview, write_votes

    if not answers:
        raise UserError("Name the answer files that raters sent, or a folder of them.")
    findings = conclude(study, answers, runs, attention)
    written = write_votes(findings, out or (study if study.is_dir() else study.parent))
    for problem in findings.problems:
        complain(problem)
    for note in findings.notes:
        say(note)
    say(overview(findings))
    say(f"tables: {written[0]} and {written[1].name}, numbers: {written[2].name}, votes: {written[3].name}")
    return 1 if findings.problems else 0
