"""Votes: known raters give known scores, published examples their published agreement, bad files a sentence each."""

import json
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.optimize import minimize

from fatezero.cli import main
from fatezero.data.files import content_digest
from fatezero.errors import UserError
from fatezero_eval.people.draws import draw
from fatezero_eval.people.krippendorff import alpha_over_clips, krippendorff_alpha
from fatezero_eval.people.polls import conclude
from fatezero_eval.people.preferences import GHOST, Vote, bradley_terry, preferences
from fatezero_eval.people.study_key import Side, StudyKey, Trial, write_key
from fatezero_eval.people.votes_files import write_votes
from fatezero_eval.scoring.provenance import Provenance, write_provenance
from fatezero_eval.scoring.rows import Row, write_rows

METHODS = ("a", "b", "c", "d")
STRENGTHS = dict(zip(METHODS, (0.9, 0.3, -0.2, -1.0), strict=True))  # mean 0
CLIPS, RATERS = 30, 12


def units(*raters):
    """Rows of raters, a dot for what is missing, as lists of what each unit was given."""
    return [[value for value in unit if value != "."] for unit in zip(*(row.split() for row in raters), strict=True)]


# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": examples A, B and C.
BINARY = units("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")
NOMINAL = units("a a b b d c c c e d d a", "b a b b b c c c e d d d")
MISSING = units(
    "1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."
)


@pytest.mark.parametrize(("data", "published"), [(BINARY, 0.095), (NOMINAL, 0.692), (MISSING, 0.743)])
def test_agreement_is_the_published_one(data, published):
    assert krippendorff_alpha(data) == pytest.approx(published, abs=6e-4)


def alpha_by_pairs(data):
    """Observed over expected disagreement, pair of values by pair of values, as defined."""
    pairable = [unit for unit in data if len(unit) > 1]
    values = [value for unit in pairable for value in unit]
    observed = sum(sum(x != y for x, y in permutations(unit, 2)) / (len(unit) - 1) for unit in pairable) / len(values)
    expected = sum(x != y for x, y in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


def test_agreement_follows_its_definition_whoever_is_missing():
    rng = np.random.default_rng(0)
    for _ in range(20):
        data = [list(rng.choice(["first", "second", "tie"], rng.integers(0, 6), p=[0.6, 0.3, 0.1])) for _ in range(15)]
        assert krippendorff_alpha(data) == pytest.approx(alpha_by_pairs(data), abs=1e-12)


@pytest.mark.parametrize("data", [[], [[]], [["x"], ["y"]], [["x", "x"], ["x", "x", "x"]]])
def test_agreement_without_difference_or_company_is_not_defined(data):
    assert krippendorff_alpha(data) is None


def test_agreement_over_clips_has_an_interval_that_holds_it():
    by_clip = {str(number): MISSING[number : number + 1] for number in range(len(MISSING))}
    found = alpha_over_clips(by_clip, draw(list(by_clip), ["r"]))
    assert found.value == krippendorff_alpha(MISSING)
    assert 0 < found.low < found.value < found.high <= 1


def posterior_mode(wins):
    """The same strengths by another way: SciPy minimises what is maximised."""

    def loss(s):
        odds = s[:, None] - s[None, :]
        ghost = GHOST * (np.logaddexp(0, -s) + np.logaddexp(0, s))
        return (wins * np.logaddexp(0, -odds)).sum() + ghost.sum()

    def slope(s):  # estimated from differences, it is as good as the CPU's last digits
        unlikely = wins / (1 + np.exp(s[:, None] - s[None, :]))
        return unlikely.sum(0) - unlikely.sum(1) + GHOST * np.tanh(s / 2)

    found = minimize(loss, np.zeros(len(wins)), jac=slope, method="BFGS", options={"gtol": 1e-9}).x
    return found - found.mean()


def test_strengths_are_the_most_likely_ones():
    rng = np.random.default_rng(1)
    wins = rng.integers(0, 30, (5, 6, 6)).astype(float) / 2
    wins[:, np.arange(6), np.arange(6)] = 0
    wins[3, 0], wins[3, :, 1], wins[4] = 0, 0, 0  # one never wins, one never loses; nobody met anybody
    found = bradley_terry(wins)
    for own, strengths in zip(wins, found, strict=True):
        assert strengths == pytest.approx(posterior_mode(own), abs=1e-6)
        assert bradley_terry(own) == pytest.approx(strengths, abs=1e-9)
    assert found[4] == pytest.approx(np.zeros(6))


def test_two_methods_have_the_closed_form():
    wins = np.array([[0.0, 1e6], [2e5, 0.0]])  # so many that the prior hardly counts
    first, second = bradley_terry(wins)
    assert first - second == pytest.approx(np.log(5), abs=1e-4)


def simulated(strengths=STRENGTHS, clips=CLIPS, raters=RATERS, ties=0.1, seed=0):
    """Raters who choose by Bradley and Terry's model, and now and then see no difference."""
    rng = np.random.default_rng(seed)
    votes = []
    for clip in range(clips):
        for pair in combinations(strengths, 2):
            first, second = pair if rng.random() < 0.5 else pair[::-1]
            p_first = 1 / (1 + np.exp(strengths[second] - strengths[first]))
            for rater in range(raters):
                choice = None if rng.random() < ties else int(rng.random() > p_first)
                trial = f"{clip} {' '.join(pair)}"
                names = {"clip": str(clip), "rater": str(rater), "trial": trial, "first": first, "second": second}
                votes.append(Vote(**names, choice=choice))
    return votes


def preferred(votes, **drawing):
    draws = draw(sorted({v.clip for v in votes}), sorted({v.rater for v in votes}), **drawing)
    return {one.method: one for one in preferences(votes, list(METHODS), draws)}


def test_the_known_rater_is_found_again():
    found = preferred(simulated(ties=0))
    for method, strength in STRENGTHS.items():
        assert found[method].strength.value == pytest.approx(strength, abs=0.12)
        assert found[method].strength.low < strength < found[method].strength.high
        assert found[method].strength.high - found[method].strength.low < 0.6
    assert [found[method].rank for method in METHODS] == [1, 2, 3, 4]
    assert sum(one.wins for one in found.values()) == CLIPS * 6 * RATERS


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """30 studies have four known strengths each: 95 % of 120 are 114, and these draws err on the wide side."""
    held = 0
    for seed in range(30):
        found = preferred(simulated(clips=12, raters=6, ties=0, seed=seed), resamples=300)
        held += sum(found[m].strength.low <= s <= found[m].strength.high for m, s in STRENGTHS.items())
    assert held >= 108


def test_equal_methods_share_the_first_rank():
    found = preferred(simulated(dict.fromkeys(METHODS, 0.0)))
    assert {one.rank for one in found.values()} == {1}
    for one in found.values():
        assert one.win_rate.low < 0.5 < one.win_rate.high
        assert one.wins + one.ties + one.losses == CLIPS * 3 * RATERS


def test_win_rates_count_ties_as_halves():
    votes = [replace(vote, choice=(0, None, None, 1)[int(vote.rater)]) for vote in simulated(clips=2, raters=4)]
    found = preferred(votes)
    assert all(one.win_rate.value == 0.5 for one in found.values())
    assert (found["a"].ties, found["a"].wins + found["a"].losses) == (12, 12)
    assert np.isnan(found["a"].strength.low)  # two clips are too few
    assert found["a"].rank is None


def test_draws_follow_from_their_seed_and_take_as_many_as_there_are():
    clips, raters = [str(i) for i in range(9)], ["x", "y", "z"]
    one, same, other = (draw(clips, raters, seed=seed) for seed in (3, 3, 4))
    assert (one.of_clips == same.of_clips).all()
    assert (one.of_clips != other.of_clips).any()
    assert (one.of_clips.sum(axis=1) == 9).all()
    assert (one.of_raters.sum(axis=1) == 3).all()
    assert one.of_clips.mean() == pytest.approx(1)
    votes = simulated(clips=8, raters=3)
    assert preferred(votes, seed=5) == preferred(list(reversed(votes)), seed=5)
    assert preferred(votes, seed=5) != preferred(votes, seed=6)


def make_key(clips=8, questions=("overall",), runs=()):
    trials = {}
    for clip in range(clips):
        for one, other in combinations(METHODS, 2):
            sides = [Side(method=name, seed=0) for name in (one, other)][:: 1 - 2 * (clip % 2)]
            named = {"edit": f"edit-{clip}", "clip": f"clip-{clip}", "category": ("style", "shape")[clip % 2]}
            trials[f"pair-{len(trials)}"] = Trial(**named, first=sides[0], second=sides[1])
    for number, right in enumerate((0, 1, 0)):
        side, named = Side(method="a", seed=0), {"edit": "edit-0", "clip": "clip-0", "category": "style"}
        trials[f"check-{number}"] = Trial(**named, first=side, second=side, right=right)
    texts = {name: f"Which is better in {name}?" for name in questions}
    return StudyKey(
        study="digest", questions=texts, ties=True, methods=METHODS, runs=tuple(map(str, runs)), trials=trials
    )


def answer(key, rater, choose, attentive=True, **changed):
    """An answer file as the page writes it; `choose` says which of two methods a rater takes."""
    answers, pace = [], sum(rater.encode()) % 97 / 10  # no two people are as quick as one another
    for name, trial in key.trials.items():
        for question in key.questions:
            choice = choose(trial.first.method, trial.second.method)
            if trial.right is not None:
                choice = trial.right if attentive else 1 - trial.right
            answers.append(
                {"trial": name, "question": question, "choice": choice, "left": len(name) % 2, "seconds": 4.5 + pace}
            )
    return {"format": "fatezero-study-answers@1", "study": key.study, "rater": rater, "answers": answers, **changed}


def in_order(first, second):
    """Prefers what comes first in the alphabet."""
    return int(second < first)


@pytest.fixture
def folder(tmp_path):
    write_key(tmp_path, make_key())
    return tmp_path


def save(folder, name, values):
    path = folder / "answers" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_answers_become_tables(folder, capsys):
    key = make_key()
    for rater in ("ann", "bob"):
        save(folder, rater, answer(key, rater, in_order))
    save(folder, "cy", answer(key, "cy", lambda first, second: None))
    assert main(["votes", str(folder), str(folder / "answers")]) == 0
    numbers = json.loads((folder / "votes.json").read_text())
    (overall,) = numbers["questions"]
    assert [one["method"] for one in overall["methods"]] == list(METHODS)
    assert [(one["wins"], one["ties"], one["losses"]) for one in overall["methods"]] == [
        (48, 24, 0), (32, 24, 16), (16, 24, 32), (0, 24, 48)
    ]  # fmt: skip
    assert (overall["clips"], overall["raters"], overall["votes"]) == (8, 3, 144)
    assert overall["methods"][0]["win_rate"]["value"] == pytest.approx(60 / 72)
    assert set(overall["by_category"]) == {"style", "shape"}
    assert overall["methods"][0]["rank"] == 1
    assert {one["name"]: one["checks"] for one in numbers["raters"]} == {"ann": 3, "bob": 3, "cy": 3}
    lines = (folder / "votes.csv").read_text().splitlines()
    assert lines[0] == "question,rater,trial,edit,clip,category,first,second,preferred"
    assert len(lines) == 1 + 144
    assert "overall,ann,pair-0,edit-0,clip-0,style,a,b,a" in lines
    assert "| a |" in capsys.readouterr().out


def test_results_do_not_hang_on_the_order_of_files(folder):
    key = make_key()
    rng = np.random.default_rng(0)
    paths = [save(folder, r, answer(key, r, lambda *_: int(rng.integers(2)))) for r in ("ann", "bob", "cy")]
    written = []
    for order in (paths, paths[::-1], [folder / "answers"]):
        findings = conclude(folder, order, [folder], 0.75)
        write_votes(replace(findings, raters=sorted(findings.raters, key=lambda one: one.name)), folder / "out")
        written.append(json.loads((folder / "out" / "votes.json").read_text()))
    assert written[0] == written[1] == written[2]


def test_raters_who_fail_the_checks_do_not_count(folder):
    key = make_key()
    save(folder, "ann", answer(key, "ann", in_order))
    save(folder, "bad", answer(key, "bad", lambda *names: 1 - in_order(*names), attentive=False))
    unfinished = answer(key, "half", in_order)
    unfinished["answers"] = [one for one in unfinished["answers"] if one["trial"].startswith("pair")]
    save(folder, "half", unfinished)
    findings = conclude(folder, [folder / "answers"], [], 0.75)
    assert {rater.name: rater.counts for rater in findings.raters} == {"ann": True, "bad": False, "half": False}
    assert {vote.rater for vote in findings.polls[0].votes} == {"ann"}
    assert "The 48 votes of the rater 'bad' do not count: 0 of 3 checks were answered rightly." in findings.problems
    assert "The 48 votes of the rater 'half' do not count: no check was answered." in findings.problems
    lenient = conclude(folder, [folder / "answers"], [], 0.0)
    assert {vote.rater for vote in lenient.polls[0].votes} == {"ann", "bad"}


def without(field):
    return lambda values: json.dumps({name: value for name, value in values.items() if name != field})


def changed(**fields):
    def change(values):
        values["answers"][0] |= fields
        return json.dumps(values)

    return change


DAMAGES = {
    "no json": lambda values: "{",
    "a list": lambda values: "[]",
    "empty": lambda values: "",
    "other format": lambda values: json.dumps(values | {"format": "other"}),
    "no rater": without("rater"),
    "no study": without("study"),
    "rater is a number": lambda values: json.dumps(values | {"rater": 7}),
    "rater is blank": lambda values: json.dumps(values | {"rater": " "}),
    "rater is long": lambda values: json.dumps(values | {"rater": "x" * 101}),
    "answers are a text": lambda values: json.dumps(values | {"answers": "abc"}),
    "another pair": changed(trial="pair-999"),
    "another question": changed(question="beauty"),
    "another choice": changed(choice=2),
    "a choice that is true": changed(choice=True),
    "seconds are a text": changed(seconds="1"),
    "seconds below zero": changed(seconds=-1),
    "a field more": changed(method="a"),
    "twice": lambda values: json.dumps(values | {"answers": values["answers"] * 2}),
    "deep": lambda values: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_costs_itself_alone(folder, damage):
    key = make_key()
    save(folder, "ann", answer(key, "ann", in_order))
    bad = save(folder, "bad", damage(answer(key, "bad", in_order)))
    findings = conclude(folder, [folder / "answers"], [folder], 0.75)
    assert [rater.name for rater in findings.raters] == ["ann"]
    (problem,) = [problem for problem in findings.problems if str(bad) in problem]
    assert "not readable as answers" in problem
    assert "\n" not in problem
    assert len(problem) < 600


def test_foreign_and_doubled_files_cost_nothing_else(folder, tmp_path):
    key = make_key()
    short = answer(key, "ann", in_order)
    save(folder, "ann-early", short | {"answers": short["answers"][:20]})
    save(folder, "ann", short)
    save(folder, "ann-again", short)
    save(folder, "zoe", answer(key, "zoe", in_order, study="another"))
    findings = conclude(folder, [folder / "answers", folder / "answers" / "ann.json"], [folder], 0.75)
    assert {vote.rater for vote in findings.polls[0].votes} == {"ann"}
    assert len(findings.polls[0].votes) == 48
    early, twice, other = (problem.removeprefix(f"{folder}/answers/") for problem in findings.problems[:3])
    assert early.startswith("ann-early.json: has 20 answers of the rater 'ann', of whom ")
    assert twice.startswith("ann.json: has the same answers of the rater 'ann', of whom ")
    assert other == "zoe.json: answers another study ('another'); name the folder of that one."


def test_one_persons_answers_count_once_whatever_the_name(folder):
    key = make_key()
    save(folder, "ann", answer(key, "ann", in_order))
    copy = save(folder, "zoe", answer(key, "ann", in_order) | {"rater": "zoe"})
    findings = conclude(folder, [folder / "answers"], [folder], 0.75)
    assert {vote.rater for vote in findings.polls[0].votes} == {"ann"}
    told = (
        f"{copy}: has the answers of {folder / 'answers' / 'ann.json'} under another name, all as quickly; they count"
    )
    assert findings.problems[0] == f"{told} once."


def test_a_check_is_a_pair_and_no_difference_an_honest_answer_to_one_of_its_questions(folder):
    key = make_key(questions=("overall", "text"))
    write_key(folder, key)
    choices = {  # on the whole video of each check: overall, and whether it shows the text
        "honest": (("right", None), ("right", "right"), ("right", None)),
        "blind": ((None, None), ("right", "right"), ("right", "right")),
        "hasty": (("right", "wrong"), ("right", "right"), ("right", "right")),
    }
    for rater, checks in choices.items():
        values = answer(key, rater, in_order)
        for said in values["answers"]:
            if said["trial"].startswith("check"):
                right = key.trials[said["trial"]].right
                wanted = checks[int(said["trial"][-1])][said["question"] == "text"]
                said["choice"] = {"right": right, "wrong": 1 - right, None: None}[wanted]
        save(folder, rater, values)
    raters = {one.name: one for one in conclude(folder, [folder / "answers"], [folder], 0.75).raters}
    assert {name: (one.right, one.checks, one.votes) for name, one in raters.items()} == {
        "honest": (3, 3, 96),
        "blind": (2, 3, 96),
        "hasty": (2, 3, 96),
    }
    assert {name for name, one in raters.items() if one.counts} == {"honest"}


def test_names_from_raters_cannot_act(folder, capsys):
    key = make_key()
    hostile = "=cmd|<script>alert(1)</script>\x1b[31m`|`\n# head"
    save(folder, "ann", answer(key, hostile, in_order))
    save(folder, "eve", answer(key, hostile + "!", in_order, attentive=False))
    main(["votes", str(folder), str(folder / "answers")])
    page = (folder / "votes.html").read_text()
    assert "<script>alert" not in page
    table = (folder / "votes.md").read_text()
    assert "\x1b" not in table
    assert "<script>" not in table
    assert "\n# head" not in table
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert all(not line.startswith("=") for line in (folder / "votes.csv").read_text().splitlines())
    assert "'=cmd" in (folder / "votes.csv").read_text()


def test_nothing_that_counts_is_said(folder):
    with pytest.raises(UserError, match="no vote counts"):
        conclude(folder, [folder / "nothing.json"], [], 0.75)
    with pytest.raises(UserError, match="attention is 2"):
        conclude(folder, [], [], 2)
    with pytest.raises(UserError, match="key of a study"):
        conclude(folder / "elsewhere", [], [], 0.5)


def scored(folder, values):
    """A run's evaluation with these values by metric, method and edit."""
    out = folder / "evaluation"
    rows = [
        Row(
            **{
                "clip": f"clip-{edit[-1]}",
                "edit": edit,
                "category": "",
                "variant": method,
                "seed": 0,
                "metric": metric,
            },
            **{"value": value, "defined": 1, "undefined": 0, "reason": "", "model": ""},
        )
        for (metric, method, edit), value in values.items()
    ]
    write_rows(out, rows)
    empty = {"manifest": "", "manifest_digest": "", "edits": {}, "models": {}, "edit_mask": "given", "device": "cpu"}
    metrics = tuple(dict.fromkeys(row.metric for row in rows))
    digest = content_digest(out / "rows.jsonl")
    write_provenance(out, Provenance(rows=digest, metrics=metrics, versions={}, **empty))
    return folder


def test_metrics_stand_beside_the_votes(tmp_path):
    edits = [f"edit-{clip}" for clip in range(8)]
    place = {method: number for number, method in enumerate(METHODS)}
    values = {}
    for edit in edits:
        for method in METHODS:
            values["text_alignment@1", method, edit] = 30.0 - place[method]  # as people see it
            values["warp_error@1", method, edit] = 0.01 * place[method]  # lower is better: the same
            values["psnr/outside@1", method, edit] = 20.0 + place[method]  # the other way round
            values["ssim/outside@1", method, edit] = 0.5  # tells nothing
            values["mse/outside@1", method, edit] = None
    run = scored(tmp_path / "run", values)
    write_key(tmp_path, make_key(runs=[run]))
    save(tmp_path, "ann", answer(make_key(), "ann", in_order))
    findings = conclude(tmp_path, [tmp_path / "answers"], [], 0.75)
    found = {one.metric: one for one in findings.polls[0].accordances}
    assert not findings.problems
    for metric, correlation, agreement in (
        ("text_alignment@1", 1, 1),
        ("warp_error@1", 1, 1),
        ("psnr/outside@1", -1, 0),
        ("ssim/outside@1", None, 0.5),
    ):
        assert found[metric].correlation == (None if correlation is None else pytest.approx(correlation))
        assert found[metric].agreement.value == agreement
        assert (found[metric].pairs, found[metric].methods) == (48, 4)
    assert "mse/outside@1" not in found
    write_votes(findings, tmp_path)
    assert "| text_alignment@1 | 1.00 [1.00, 1.00] | 48 | 1.00 | 4 |" in (tmp_path / "votes.md").read_text()


def test_pairs_that_people_leave_open_say_nothing_of_metrics(tmp_path):
    values = {("text_alignment@1", method, f"edit-{clip}"): 1.0 * clip for method in METHODS for clip in range(8)}
    run = scored(tmp_path / "run", values)
    write_key(tmp_path, make_key())
    save(tmp_path, "ann", answer(make_key(), "ann", in_order))
    save(tmp_path, "bob", answer(make_key(), "bob", lambda *names: 1 - in_order(*names)))
    (poll,) = conclude(tmp_path, [tmp_path / "answers"], [run], 0.75).polls
    assert poll.accordances[0].pairs == 0
    assert poll.accordances[0].agreement is None
    assert poll.alpha.value < 0  # they always differ


def test_only_runs_that_were_asked_for_must_be_scored(tmp_path):
    write_key(tmp_path, make_key(runs=[tmp_path / "run"]))
    answers = [save(tmp_path, "ann", answer(make_key(), "ann", in_order))]
    own, asked = (conclude(tmp_path, answers, runs, 0.75) for runs in ([], [tmp_path / "run"]))
    assert own.notes == list(asked.problems)
    assert "no scores" in own.notes[0]
    assert not own.problems
    assert not asked.notes
