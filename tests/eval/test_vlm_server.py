"""A model behind an address, stood in for by a real server on this machine: whole, slow, busy, broken, refusing."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT, pthread_kill
from threading import Timer, main_thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.options import AskingOptions, EvaluateRun
from fatezero_eval.scoring.evaluation import evaluate_run
from fatezero_eval.vlm import questions
from fatezero_eval.vlm.answer_cache import AnswerCache
from fatezero_eval.vlm.answer_log import costs_of
from fatezero_eval.vlm.answerers import load_interviewer
from fatezero_eval.vlm.answering import UnansweredError
from fatezero_eval.vlm.http_answerer import TRIES, HttpAnswerer
from fatezero_eval.vlm.interview import Answer, Interviewer
from fatezero_eval.vlm.questions import AskedEdit, Question
from fatezero_eval.vlm.shown_frames import ShownFrames
from tests.eval.stand_in_server import Said, Script, completion, question_of, serving

KEY = "sk-a-key-that-nobody-may-see"
SNOW = questions.YES_NO.of_edit(AskedEdit(source_prompt="a jeep on the road", target_prompt="a jeep in the snow"))
TARGET = SNOW[0]


def pictures(seed: int = 0) -> ShownFrames:
    frames: Frames = np.random.default_rng(seed).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    return ShownFrames(edited=frames, source=255 - frames)


def asked(script: Script, question: Question = TARGET, **more: Any) -> tuple[Answer, list[dict[str, Any]]]:
    """One question's answer, and the requests that it took."""
    with serving(script) as server:
        answerer = HttpAnswerer(server.address, "tiny", first_wait=0.0, **more)
        (answer,) = Interviewer(answerer).ask([question], pictures())
        return answer, server.requests


def test_the_request_holds_the_model_the_frames_in_order_and_the_question() -> None:
    with serving(lambda *_: completion("Yes.")) as server:
        reply = HttpAnswerer(server.address, "tiny", key=KEY)(TARGET, pictures(), 0)
    (request,), (headers,) = server.requests, server.headers
    assert (reply.text, reply.prompt_tokens, reply.answer_tokens, reply.tries) == ("Yes.", 100, 2, 1)
    assert (request["path"], request["model"], request["temperature"]) == ("/v1/chat/completions", "tiny", 0.0)
    assert "seed" not in request
    assert headers["authorization"] == f"Bearer {KEY}"
    (message,) = request["messages"]
    content = message["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"] * 2 + ["text"]
    assert content[-1]["text"] == TARGET.text
    shown = []
    for part in content:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            shown.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    whole = pictures()
    assert whole.source is not None
    assert np.array_equal(np.stack(shown), np.concatenate([whole.source, whole.edited]))


def test_a_proxy_is_not_taken_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    answer, _ = asked(lambda *_: completion("Yes"))
    assert answer.score == 1


def test_a_key_that_is_named_and_not_set_is_said() -> None:
    asking = AskingOptions(vlm="http://127.0.0.1:1/v1", vlm_model="tiny", vlm_key="NO_SUCH_KEY")
    with pytest.raises(UserError, match="'NO_SUCH_KEY', which is not set"):
        load_interviewer(asking, None, None)


def test_no_key_is_sent_where_there_is_none_and_a_temperature_comes_with_a_seed() -> None:
    with serving(lambda *_: completion("no")) as server:
        warm = Interviewer(HttpAnswerer(server.address, "tiny", temperature=0.7, at_once=1), repeats=3)
        warm.ask([TARGET], pictures())
        HttpAnswerer(server.address, "tiny", temperature=None)(TARGET, pictures(), 0)
    assert not any("authorization" in headers for headers in server.headers)
    assert [request.get("seed") for request in server.requests] == [0, 1, 2, None]
    assert "temperature" not in server.requests[3]
    assert warm.id == f"tiny at {server.address.removeprefix('http://')}, temperature 0.7"


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}…", f" {KEY}", "sk-\0"])
def test_a_key_that_no_header_can_hold_is_refused_without_a_word_of_it(key: str) -> None:
    with pytest.raises(UserError, match="has blanks, line ends or characters beyond ASCII") as refused:
        HttpAnswerer("http://127.0.0.1:1/v1", "tiny", key=key)
    assert KEY not in str(refused.value)


def test_a_key_that_the_server_repeats_is_kept_nowhere(tmp_path: Path) -> None:
    with serving(lambda *_: completion(f"Yes, {KEY}")) as server:
        interviewer = Interviewer(HttpAnswerer(server.address, "tiny", key=KEY), 1, AnswerCache(tmp_path))
        (answer,) = interviewer.ask([TARGET], pictures())
    assert (answer.text, answer.score) == ("Yes, …", 1)
    assert not [file for file in tmp_path.rglob("*.json") if KEY in file.read_text()]


@pytest.mark.parametrize("usage", [None, "n/a", [1], {"prompt_tokens": -4, "completion_tokens": 2.5}, {}])
def test_an_answer_counts_whatever_the_server_says_of_its_cost(usage: Any) -> None:
    values = {**json.loads(completion("Yes").body), "usage": usage}
    answer, _ = asked(lambda *_: Said(body=json.dumps(values).encode()))
    assert (answer.score, answer.tries, answer.prompt_tokens, answer.answer_tokens) == (1, 1, None, None)


def test_what_a_server_says_in_place_of_an_answer_is_told() -> None:
    answer, _ = asked(lambda *_: Said(body=b'{"error": {"message": "model is overloaded", "code": 502}}'))
    assert "answers without choices[0].message.content: model is overloaded (asked 4 times)" in answer.failure


FAILING_FIRST: dict[str, Said] = {
    "busy": Said(body=b"{}", status=429, headers={"Retry-After": "0"}),
    "busy until a date": Said(body=b"", status=503, headers={"Retry-After": "Thu, 26 Nov 2020 00:00:00 GMT"}),
    "broken": Said(body=b"<html>Internal Server Error</html>", status=500),
    "no JSON": Said(body=b'{"choices": [{"mess'),
    "other JSON": Said(body=b'{"object": "list", "data": []}'),
    "cut short": Said(body=b"{}", headers={"Content-Length": "200", "Connection": "close"}),
}


@pytest.mark.parametrize("first", FAILING_FIRST.values(), ids=FAILING_FIRST)
def test_what_may_pass_is_tried_again(first: Said) -> None:
    answer, requests = asked(lambda _, number: completion("Yes") if number == 2 else first)
    assert (answer.score, answer.tries, answer.failure) == (1, 3, "")
    assert len(requests) == 3


def test_a_server_that_stays_broken_is_asked_four_times() -> None:
    answer, requests = asked(lambda *_: Said(body=b'{"error": {"message": "out of memory"}}', status=500))
    assert len(requests) == answer.tries == TRIES
    assert answer.score is None
    assert "answers 500: out of memory (asked 4 times): evaluate again" in answer.failure


def test_a_slow_server_is_waited_for_as_long_as_was_said() -> None:
    answer, _ = asked(lambda *_: Said(body=completion("Yes").body, delay=30.0), timeout=0.1)
    assert "did not answer within 0.1 seconds (--vlm-timeout) (asked 4 times)" in answer.failure
    assert answer.tries == TRIES


def test_whoever_interrupts_does_not_wait_for_a_server_that_is_stuck() -> None:
    with serving(lambda *_: Said(body=completion("Yes").body, delay=100.0)) as server:
        interviewer = Interviewer(HttpAnswerer(server.address, "tiny"), repeats=5)
        Timer(0.3, pthread_kill, (main_thread().ident, SIGINT)).start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            interviewer.ask(SNOW, pictures())
    assert time.monotonic() - begun < 50


def test_a_wait_that_is_too_long_is_told() -> None:
    answer, requests = asked(lambda *_: Said(body=b"", status=429, headers={"Retry-After": "3600"}))
    assert "asks to wait 3,600 seconds" in answer.failure
    assert len(requests) == 1


@pytest.mark.parametrize("status", [401, 404, 302])
def test_what_holds_for_every_question_is_asked_once(status: int) -> None:
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    refusal = Said(body=said, status=status, headers={"Location": "http://127.0.0.1:1/"})
    with serving(lambda *_: refusal) as server:
        interviewer = Interviewer(HttpAnswerer(server.address, "tiny", key=KEY, at_once=1), repeats=2)
        answers = interviewer.ask(SNOW, pictures())
    assert len(server.requests) == 1
    assert {answer.failure for answer in answers} == {answers[0].failure}
    assert f"answers {status}: Incorrect API key provided: … (check --vlm" in answers[0].failure
    assert [answer.tries for answer in answers] == [1, 0, 0, 0]


def test_a_refused_request_costs_its_question_alone() -> None:
    def script(request: dict[str, Any], _: int) -> Said:
        snow = "in the snow" in question_of(request)
        return Said(body=b'{"detail": "context is too long"}', status=400) if snow else completion("No")

    with serving(script) as server:
        one, other = Interviewer(HttpAnswerer(server.address, "tiny")).ask(SNOW, pictures())
    assert (one.score, other.score) == (None, 1)
    assert "answers 400: context is too long (mend what it names)." in one.failure


def test_a_server_that_is_not_there_is_said_to_be_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnansweredError, match=r"cannot be reached .*start the server, or correct --vlm"):
        HttpAnswerer(f"http://127.0.0.1:{port}/v1", "tiny")(TARGET, pictures(), 0)


@pytest.mark.parametrize(
    "said", [completion(None, refusal="I can't help with that."), completion(""), completion("It shows a jeep.")]
)
def test_refusals_and_other_words_are_kept_and_undefined(said: Said) -> None:
    answer, requests = asked(lambda *_: said)
    assert (answer.score, answer.failure, len(requests)) == (None, "", 1)
    message = json.loads(said.body)["choices"][0]["message"]
    assert answer.text == (message["content"] or message.get("refusal") or "")


def test_words_in_parts_are_put_together() -> None:
    answer, _ = asked(lambda *_: completion([{"type": "text", "text": "Y"}, {"type": "text", "text": "es"}]))  # type: ignore[arg-type]
    assert (answer.text, answer.score) == ("Yes", 1)


@pytest.mark.parametrize(
    "address",
    [
        *["ftp://host/v1", "http://", "http://host:port/v1", f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}"],
        *["http://host/v 1", "http://höst/v1", "http://host/v1/chat/completions/"],
    ],
)
def test_what_is_no_address_is_refused_without_its_key(address: str) -> None:
    with pytest.raises(UserError) as refused:
        HttpAnswerer(address, "tiny")
    assert "--vlm" in str(refused.value)
    assert KEY not in str(refused.value)


def opinion(request: dict[str, Any], _: int) -> Said:
    """Answers that depend on the question and the frames alone."""
    content = json.dumps(request["messages"])
    return completion(("yes", "no", "4", "perhaps")[sum(content.encode()) % 4])


def test_how_many_are_asked_at_once_changes_nothing() -> None:
    with serving(opinion) as server:
        found = []
        for at_once in (1, 8):
            interviewer = Interviewer(HttpAnswerer(server.address, "tiny", at_once=at_once), repeats=5)
            answers = [interviewer.ask(SNOW, pictures(seed)) for seed in range(4)]
            found.append([(a.question, a.repeat, a.text, a.score) for part in answers for a in part])
    assert found[0] == found[1]
    assert len(server.requests) == 2 * 4 * 5 * 2
    assert {text for _, _, text, _ in found[0]} > {"yes"}


def test_answers_are_kept_and_asked_again_only_where_something_differs(tmp_path: Path) -> None:
    with serving(lambda *_: completion("Yes")) as server:

        def ask(model: str = "tiny", seed: int = 0, repeats: int = 1, question: Question = TARGET) -> Answer:
            answerer = HttpAnswerer(server.address, model, key=KEY)
            return Interviewer(answerer, repeats, AnswerCache(tmp_path)).ask([question], pictures(seed))[-1]

        first, again = ask(), ask()
        assert (first.kept, again.kept, len(server.requests)) == (False, True, 1)
        assert (again.text, again.seconds) == (first.text, first.seconds)
        for number, other in enumerate(
            ({"model": "large"}, {"seed": 1}, {"repeats": 2}, {"question": SNOW[1]}), start=2
        ):
            assert not ask(**other).kept  # type: ignore[arg-type]
            assert len(server.requests) == number
        (kept,) = [
            file
            for file in tmp_path.rglob("*.json")
            if json.loads(file.read_text())["model"].startswith("large at 127")
        ]
        assert json.loads(kept.read_text())["text"] == "Yes"
        kept.write_text('{"text": 4}')
        assert ask(model="large").score == 1
        assert len(server.requests) == 6
    assert not [file for file in tmp_path.rglob("*.json") if KEY in file.read_text()]


def test_costs_are_counted() -> None:
    script = [completion("Yes"), completion("perhaps"), Said(body=b"", status=400), Said(body=b"", status=500)]

    def said(_: dict[str, Any], number: int) -> Said:
        return script[number] if number < 4 else completion("No")

    with serving(said) as server:
        answers = Interviewer(HttpAnswerer(server.address, "tiny", at_once=1, first_wait=0.0), 2).ask(SNOW, pictures())
    costs = costs_of([vars(answer) for answer in answers])
    assert costs is not None
    assert (costs.answers, costs.unclear, costs.failed, costs.tries) == (3, 1, 1, 2)
    assert (costs.prompt_tokens, costs.answer_tokens, costs.kept) == (300, 6, 0)
    known = costs_of([{**vars(answers[0]), "kept": True}, vars(answers[1])])
    assert known is not None
    assert (known.answers, known.kept, known.prompt_tokens) == (2, 1, 100)
    assert "3 answers (0 known before, 1 neither as asked), 1 questions unanswered, 2 tries in vain" in str(costs)


NAMES = ("vlm_yes_no", "vlm_yes_no/spread", "vlm_instruction", "temporal_flickering")


@pytest.fixture
def scored(run_folder: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Evaluates the run with a model at an address, a key in the environment."""
    monkeypatch.setenv("A_KEY", KEY)

    def evaluate(address: str, **more: Any) -> Any:
        asking = AskingOptions(vlm=address, vlm_model="tiny", vlm_key="A_KEY", vlm_answers=2)
        named = {"metrics": NAMES, "judge": str(tiny_clip), **more}
        return evaluate_run(EvaluateRun(run=run_folder, asking=asking, **named))

    return evaluate


def grading(request: dict[str, Any], _: int) -> Said:
    text = question_of(request)
    if text.endswith("5."):
        return completion("4")
    return completion("Yes" if "red" in text else "no")


@pytest.mark.slow
def test_answers_become_rows_with_their_model_and_a_log(scored: Callable[..., Any], run_folder: Path) -> None:
    with serving(grading) as server:
        evaluation = scored(server.address)
        sent = len(server.requests)
        again = scored(server.address)
        assert len(server.requests) == sent
    values = {(row.variant, row.metric): row.value for row in evaluation.rows if row.edit == "owl-1"}
    assert values["full", "vlm_yes_no@1"] == values["no edit", "vlm_yes_no@1"] == 1  # this model looks at no picture
    assert values["full", "vlm_yes_no/spread@1"] == 0
    assert values["full", "vlm_instruction@1"] == 4
    # the source judged by its own prompt is a jeep, and is no red jeep: the model says it is
    assert values["source", "vlm_yes_no@1"] == 0
    assert not evaluation.failures
    assert again.rows == evaluation.rows
    (model,) = {row.model for row in evaluation.rows if row.metric.startswith("vlm")}
    assert model == f"tiny at {server.address.removeprefix('http://')}"
    provenance = json.loads((run_folder / "evaluation" / "provenance.json").read_text())
    assert provenance["models"]["vlm"] == model
    lines = [json.loads(line) for line in (run_folder / "evaluation" / "answers.jsonl").read_text().splitlines()]
    assert {line["job"] for line in lines} >= {"full/owl-1/0", "no edit/jeep-1/2"}
    assert len({(line["job"], line["question"], line["repeat"]) for line in lines}) == len(lines)
    assert {line["job"]: line["score"] for line in lines if line["version"] == "instruction@1"}["full/fox-1/1"] == 4
    assert evaluation.costs is not None
    assert len(lines) == evaluation.costs.answers == again.costs.answers
    assert sent == evaluation.costs.prompt_tokens / 100 == len(lines) - evaluation.costs.kept
    for file in run_folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_a_benchmarks_questions_reach_the_model_and_none_is_no_failure(
    scored: Callable[..., Any], run_folder: Path
) -> None:
    manifest = run_folder.parents[1] / "manifest.jsonl"
    stated = {
        "target_yes_no_question": "Is the owl red?",
        "multiple_choice_question": "What is there?\na) An owl\nb) A red owl",
    }
    first, *others = manifest.read_text().splitlines()
    entry = json.loads(first)
    manifest.write_text("\n".join([json.dumps({**entry, "truth": {**entry["truth"], **stated}}), *others]))

    def script(request: dict[str, Any], _: int) -> Said:
        return completion("Yes" if question_of(request).startswith("Is the owl red?") else "b) A red owl")

    with serving(script) as server:
        evaluation = scored(server.address, manifest=manifest, metrics=("vlm_five_acc", "vlm_yes_no/stated"))
        assert {question_of(request).rpartition("\n")[0] for request in server.requests} == {*stated.values()}
    assert not evaluation.failures
    values = {(row.variant, row.edit, row.metric): row.value for row in evaluation.rows}
    assert values["full", "owl-1", "vlm_five_acc@1"] == values["no edit", "owl-1", "vlm_yes_no/stated@1"] == 1
    assert values["source", "owl-1", "vlm_five_acc@1"] == 0
    assert values["full", "fox-1", "vlm_five_acc@1"] is None


@pytest.mark.slow
def test_what_was_not_answered_is_asked_when_it_is_scored_again(scored: Callable[..., Any]) -> None:
    with serving(lambda *_: Said(body=b"", status=401)) as server:
        evaluation = scored(server.address)
        assert len(server.requests) <= 4  # those that were on their way when the first came back
    reasons = {row.reason for row in evaluation.rows if row.metric == "vlm_yes_no@1"}
    assert len(reasons) == 1
    assert "no answer: http://127.0.0.1" in reasons.pop()
    assert all(
        row.value is not None
        for row in evaluation.rows
        if row.metric == "temporal_flickering@1" and row.edit != "jeep-1"
    )
    assert "full/owl-1/0, vlm_yes_no, vlm_instruction, vlm_yes_no/spread" in evaluation.failures
    with serving(grading) as server:
        evaluation = scored(server.address)
    assert not evaluation.failures
    assert {row.value for row in evaluation.rows if row.metric == "vlm_instruction@1"} == {4.0}


@pytest.mark.slow
def test_two_processes_ask_as_one_does(scored: Callable[..., Any], run_folder: Path) -> None:
    with serving(opinion) as server:
        one = scored(server.address)
        two = scored(server.address, processes=2, out=run_folder.parent / "two")
    assert one.rows == two.rows
    assert (one.failures, one.costs.answers) == (two.failures, two.costs.answers)
