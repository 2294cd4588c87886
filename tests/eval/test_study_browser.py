"""A study in a real browser: blinded, randomised, kept, answered by keys, saved; and the votes that come of it."""

import json
import time
from collections import Counter

import numpy as np
import pytest

from fatezero.cli import main
from fatezero_eval.people.study_key import read_key
from fatezero_eval.people.study_options import StudyOptions
from fatezero_eval.people.study_page import write_study
from tests.eval.chromium import NEEDED, open_browser, wait
from tests.eval.study_runs import COLOURS, make_run

pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
pytestmark = NEEDED

HOSTILE = "</script><script>window.hacked = 1</script> <img src=x onerror='hacked = 1'>"
QUESTIONS = ("overall", "text")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield driver


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run = make_run(folder / "run", 2, target=HOSTILE)
    options = StudyOptions(checks=1, questions=QUESTIONS, title="Which <b>edit</b> is better?")
    write_study([run], [], options, folder / "study")
    return folder / "study"


@pytest.fixture
def page(browser, study):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get((study / "index.html").as_uri())
    browser.execute_script("localStorage.clear()")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.refresh()
    return browser


def start(browser, rater):
    browser.find_element("id", "rater").send_keys(rater)
    browser.find_element("css selector", ".primary").click()
    wait(browser, "return session?.stage?.counter.textContent")


def press(browser, *keys):
    for key in keys:
        browser.find_element("tag name", "body").send_keys(key)


def colours(browser):
    """Whose squares stand at A and B, by the pixels of both canvases; None for one in pieces."""
    wait(browser, "return session.stage.video.readyState >= 2 && session.stage.counter.textContent")
    script = """
      return session.stage.views.slice(1).map(({ context }) => {
        const { data } = context.getImageData(2, 10, 20, 28), points = [];
        for (let at = 0; at < data.length; at += 4) points.push([data[at], data[at + 1], data[at + 2]]);
        return points;
      });
    """
    found = []
    for points in np.array(browser.execute_script(script), dtype=float):
        nearest = {name: np.abs(points - colour).max() for name, colour in COLOURS.items()}
        best = min(nearest, key=nearest.get)
        found.append(best if nearest[best] < 60 else None)
    return found


def plan(browser, rater):
    return browser.execute_script("return planFor(arguments[0]).map(({ id, left }) => [id, left])", rater)


def answered(browser):
    return browser.execute_script("return JSON.parse(session.file())")


@pytest.mark.slow
def test_it_opens_without_errors_asks_for_nothing_and_texts_stay_texts(page, study):
    start(page, "ann")
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("blob:", "data:"))} == {(study / "index.html").as_uri()}
    assert page.execute_script("return window.hacked") is None
    assert HOSTILE in page.find_element("css selector", "h2 q").text
    assert page.find_element("tag name", "h1").text == "Which <b>edit</b> is better?"


@pytest.mark.slow
def test_order_and_sides_follow_from_the_rater(page):
    ann, bob = plan(page, "ann"), plan(page, "bob")
    assert ann == plan(page, "ann")
    assert ann != bob
    assert sorted(name for name, _ in ann) == sorted(name for name, _ in bob)
    plans = [dict(plan(page, f"rater {number}")) for number in range(60)]
    for trial in plans[0]:
        assert 15 < sum(own[trial] for own in plans) < 45
    firsts = Counter(plan(page, f"rater {number}")[0][0] for number in range(60))
    assert len(firsts) > 4


@pytest.mark.slow
def test_all_three_videos_play_in_step(page):
    start(page, "ann")
    page.set_script_timeout(60)
    seen = page.execute_async_script("""
      const done = arguments[0], seen = [];
      const frame = ({ context }) => Math.round((context.getImageData(50, 24, 1, 1).data[0] - 40) / 30);
      const look = () => {
        seen.push(session.stage.views.map(frame));
        if (seen.length < 30) setTimeout(look, 50); else done(seen);
      };
      look();
    """)
    assert all(source in both for source, *both in seen)  # one of both may be in pieces
    assert len({source for source, *_ in seen}) > 2


@pytest.mark.slow
def test_a_rater_answers_by_keys_goes_on_later_and_saves(page, study, downloads):
    start(page, "ann of <b>")
    key = read_key(study)
    order = plan(page, "ann of <b>")
    assert len(order) == 7  # three pairs of each of two edits, and a check
    preferred = {}
    for number, (trial, left) in enumerate(order):
        shown = colours(page)
        sides = [key.trials[trial].first.method, key.trials[trial].second.method]
        expected = sides if left == 0 else sides[::-1]
        if key.trials[trial].right is None:
            assert shown == expected
        else:
            assert shown.count(None) == 1
        better = "1" if shown[1] is None or (shown[0] and shown[0] < shown[1]) else "3"
        second = "2" if key.trials[trial].right is None else better
        preferred[trial] = shown[0 if better == "1" else 1]
        if number == 3:  # closes the page in between, with one of two questions answered
            press(page, better)
            page.refresh()
            button = page.find_element("css selector", ".again button")
            assert button.text == "Go on as ann of <b> (3 of 7)"
            button.click()
            assert colours(page) == shown
            press(page, second, "\n")
            continue
        press(page, better, second, "\n")
    assert "Thank you" in page.find_element("tag name", "h2").text
    page.find_element("css selector", ".end .save").click()
    saved = wait_for_file(downloads, "answers-ann-of-b-.json")
    assert saved == answered(page)
    assert (saved["study"], saved["rater"]) == (key.study, "ann of <b>")
    by_question = {q: [a for a in saved["answers"] if a["question"] == q] for q in QUESTIONS}
    assert all(answer["choice"] == key.trials[answer["trial"]].right for answer in by_question["text"])
    for answer in by_question["overall"]:
        trial = key.trials[answer["trial"]]
        assert (trial.first, trial.second)[answer["choice"]].method == preferred[answer["trial"]]
        assert trial.right in (None, answer["choice"])
    out = study.parent / "out"
    assert main(["votes", str(study), str(downloads / "answers-ann-of-b-.json"), f"--out={out}"]) == 0
    numbers = json.loads((out / "votes.json").read_text())
    overall = numbers["questions"][0]["methods"]
    assert [(one["method"], one["wins"], one["losses"]) for one in overall] == [
        ("full", 4, 0),
        ("no fusion", 2, 2),
        ("sdedit", 0, 4),
    ]


def wait_for_file(folder, name):
    end = time.monotonic() + 30
    while not (folder / name).exists():
        assert time.monotonic() < end, [path.name for path in folder.iterdir()]
        time.sleep(0.05)
    return json.loads((folder / name).read_text())


def test_questions_are_answered_by_mouse_and_can_be_changed(page):
    start(page, "cy")
    boxes = page.find_elements("css selector", ".option input")
    assert len(boxes) == 6
    page.find_element("css selector", "button[type=submit]").click()  # not yet answered: it stays, and says where
    assert page.execute_script("return session.place") == 0
    assert page.execute_script("return document.activeElement === document.querySelector('.option input')")
    for number in (0, 4, 2):
        page.execute_script("document.querySelectorAll('.option input')[arguments[0]].click()", number)
    page.find_element("css selector", "button[type=submit]").click()
    (overall, text) = answered(page)["answers"]
    assert overall["choice"] == 1 - overall["left"]
    assert text["choice"] is None
    press(page, "\ue003")  # Backspace
    checked = page.execute_script("return [...document.querySelectorAll('.option input')].map((box) => box.checked)")
    assert checked == [False, False, True, False, True, False]


def test_every_control_has_a_name_and_the_keyboard_reaches_it(page):
    start(page, "dee")
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "radio", "slider", "textbox", "progressbar", "group", "image"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    assert {role for role, _ in named} >= {"button", "radio", "slider", "progressbar", "group"}
    assert all(name for role, name in named)
    assert ("group", "Which video is the better edit, all in all?") in named


@pytest.mark.parametrize("width", [340, 800, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    start(page, "eve")
    assert wait(page, "return document.documentElement.scrollWidth <= arguments[0]", width)
    small = "return [...document.querySelectorAll('.option, .steps button')].filter((e) => e.offsetHeight < 40).length"
    assert page.execute_script(small) == 0
