"""The report in a real browser: plays in step, sorts, filters, escapes, asks no network."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import write_frames, write_video
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.pages.run_page import write_report
from fatezero_eval.scoring.rows import Row, write_rows
from tests.eval.chromium import NEEDED, open_browser, wait
from tests.eval.run_records import record_of

pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
pytestmark = NEEDED

FRAMES, SIZE = 8, 48
HOSTILE = "</script><script>window.hacked = 1</script> <img src=x onerror='hacked = 1'> \"quoted\" & 'single'"
METRICS = {"text_alignment@1": 30.0, "psnr/outside@1": 24.0, "psnr/truth@1": 20.0, "warp_error@1": 0.001}
SUITE = METRICS | {
    **{"frame_accuracy@1": 0.9, "directional_similarity@1": 0.12, "frame_consistency@1": 0.96, "warp_ssim@1": 0.95},
    **{"valid_pixels@1": 0.88, "temporal_flickering@1": 0.97, "motion_fidelity@1": 1.2, "ssim/outside@1": 0.93},
    **{"ssim/truth@1": 0.81, "mse/truth@1": 0.01, "mask_iou@1": 0.83, "mse/outside@1": 0.004},
}


def counting(seed):
    """Frames whose grey says which one it is, with a patch of the seed's own colour."""
    frames = np.zeros((FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    frames[:] = (np.arange(FRAMES) * 30 + 20)[:, None, None, None]
    frames[:, :16, :16] = np.random.default_rng(seed).integers(0, 255, 3)
    return frames


def make_run(folder, edits, variants, times=None, metrics=METRICS):
    """A run with videos, masks, attention, scores and an experiment; its clips at uneven times, if asked for."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(edits):
        request = EditRequest(
            id=f"edit-{number:02d}",
            clip=ClipSpec(path=str(folder / "clips" / (f"{number}.webp" if times else str(number)))),
            source_prompt=f"a cow number {number}",
            target_prompt=HOSTILE if number == 1 else f"a golden cow number {number}",
            category=("style", "shape", "object")[number % 3],
        )
        if times:
            write_video(request.clip.path, counting(number), times)
        else:
            write_frames(request.clip.path, counting(number))
        for index, variant in enumerate(variants):
            result = folder / "run" / variant / request.id
            write_frames(result / "frames", counting(1000 * index + number + 500))
            mask = np.zeros((FRAMES, SIZE, SIZE), dtype=np.uint8)
            mask[:, :, : SIZE // 2] = 255
            write_frames(result / "masks", mask)
            Image.new("RGB", (SIZE * 4, SIZE * 2), "red").save(result / "attention_0_cow.png")
            (result / "meta.json").write_text(json.dumps(record_of(request)))
            names = {"clip": str(number), "edit": request.id, "category": request.category, "variant": variant}
            for metric, mean in metrics.items():
                value = float(mean * (1 + 0.05 * index + 0.02 * rng.normal()))
                rows.append(
                    Row(**names, seed=0, metric=metric, value=value, defined=8, undefined=0, reason="", model="m")
                )
    write_rows(folder / "run" / "evaluation", rows)
    planned = {
        name: {
            "settings": {"blending.threshold": index / 10} if index else {},
            "config": {"blending": {"threshold": 0}},
        }
        for index, name in enumerate(variants)
    }
    experiment = {"name": "browser", "reference": variants[0], "variants": planned}
    (folder / "run" / "experiment.json").write_text(json.dumps(experiment))
    return write_report(folder / "run", None, None).path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("small"), 9, ("full", "tau 1", "tau 2", "<b>bold"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Clips enough for intervals, all that is scored by default and more."""
    variants = ("full", *(f"no_{number}_fusion" for number in range(8)))
    return make_run(tmp_path_factory.mktemp("wide"), 6, variants, metrics=SUITE)


@pytest.fixture
def page(browser, written):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(written.as_uri())
    return browser


def watch(browser, edit, count=40):
    """For many moments, which frame each of an edit's canvases shows, read from its pixels."""
    element = f"document.getElementById('edit-{edit}')"
    is_drawn = f"{element}.querySelector('canvas').width > 0 && {element}.querySelector('output').textContent"
    wait(browser, f"return {is_drawn}")
    script = f"""
      const [count, done] = arguments, canvases = [...{element}.querySelectorAll("canvas")], seen = [];
      const look = () => {{
        const greys = canvases.map((canvas) => canvas.getContext("2d").getImageData(40, 40, 1, 1).data[0]);
        seen.push(greys.map((grey) => Math.round((grey - 20) / 30)));
        if (seen.length < count) setTimeout(look, 50); else done(seen);
      }};
      look();
    """
    browser.set_script_timeout(120)
    return np.array(browser.execute_async_script(script, count))


@pytest.mark.slow
def test_frames_of_uneven_clips_are_found_at_their_times(browser, tmp_path):
    times = (0.0, 0.05, 0.1, 0.5, 0.55, 1.5, 1.55, 1.6, 2.0)
    browser.get(make_run(tmp_path, 1, ("full",), times).as_uri())
    browser.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    wait(browser, "return document.querySelector('.edit canvas').width > 0")
    for frame in (5, 0, 7, 3, 1, 6, 2, 4):
        browser.execute_script(
            "const s = document.querySelector('.edit input[type=range]');"
            "s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
            frame,
        )
        wait(browser, f"return document.querySelector('.edit output').textContent === '{frame + 1} / {FRAMES}'")
        assert (watch(browser, "edit-00", count=1) == frame).all()


def rows_of(browser, section):
    script = """
      const rows = [...document.querySelectorAll(arguments[0] + " tbody tr")];
      return rows.map((row) => [...row.cells].map((cell) => cell.innerText));
    """
    return browser.execute_script(script, section)


def head(browser, section, words):
    """Click a column's head."""
    script = """
      const buttons = [...document.querySelectorAll(arguments[0] + " thead button")];
      buttons.find((button) => button.textContent.includes(arguments[1])).click();
    """
    browser.execute_script(script, section, words)


def choose(browser, name, value):
    script = """
      const labels = [...document.querySelectorAll("label.choice")];
      const field = labels.find((label) => label.firstChild.textContent === arguments[0]).querySelector("select");
      field.value = arguments[1]; field.dispatchEvent(new Event("change"));
    """
    browser.execute_script(script, name, value)


def shown_edits(browser):
    return browser.execute_script("return [...document.querySelectorAll('.edit:not([hidden])')].map(e => e.id)")


def numbers(table, column):
    return [float(row[column].split("\n")[0].replace("\N{MINUS SIGN}", "-")) for row in table]


@pytest.mark.slow
def test_it_opens_without_errors_and_asks_for_nothing(page, written):
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.execute_script("document.getElementById('edits').scrollIntoView()")
    wait(page, "return [...document.querySelectorAll('.attention img')].some(i => i.naturalWidth > 0)")
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert written.as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "blob", "data"}
    assert {url for url in asked if url.startswith("file:")} == {written.as_uri()}


@pytest.mark.slow
def test_all_videos_of_a_row_play_in_step(page):
    page.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    seen = watch(page, "edit-00")
    assert seen.shape[1] == 5  # the source and four variants
    assert (seen == seen[:, :1]).all()
    assert len(set(seen[:, 0])) > FRAMES // 2


@pytest.mark.slow
def test_a_row_stops_is_stepped_and_starts_again(page):
    page.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    watch(page, "edit-00", 1)
    page.execute_script("""
      const slider = document.querySelector("#edit-edit-00 input[type=range]");
      slider.value = 5; slider.dispatchEvent(new Event("input"));
    """)
    wait(page, "return document.querySelector('#edit-edit-00 output').textContent === '6 / 8'")
    assert (watch(page, "edit-00", 12) == 5).all()
    page.execute_script("document.querySelector('#edit-edit-00 .play').click()")
    assert len(set(watch(page, "edit-00")[:, 0])) > 2


def test_rows_out_of_sight_hold_no_video(page):
    drawn = """
      const isDrawn = (edit) => edit.querySelector("canvas").width > 0 && edit.querySelector("output").textContent;
      return [...document.querySelectorAll(".edit")].filter(isDrawn).map((edit) => edit.id);
    """
    page.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    first = wait(page, drawn)
    assert "edit-edit-00" in first
    page.execute_script("document.getElementById('provenance').scrollIntoView(); scrollBy(0, 3000)")
    wait(page, "return document.querySelector('#edit-edit-00 canvas').width === 0")


def test_masks_darken_what_was_left_alone(page):
    page.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    watch(page, "edit-00", 1)
    page.execute_script("document.querySelector('.play-all').click()")
    read = """
      const context = document.querySelector("#edit-edit-00 .panel.variant canvas").getContext("2d");
      return [10, 40].map((x) => context.getImageData(x, 30, 1, 1).data[0]);
    """
    time.sleep(0.5)
    inside, outside = page.execute_script(read)
    assert abs(inside - outside) < 8
    page.find_element("tag name", "body").send_keys("m")
    masked_inside, masked_outside = page.execute_script(read)
    assert abs(masked_inside - inside) < 8
    assert masked_outside < 0.35 * outside + 5
    assert page.execute_script("return document.querySelectorAll('#edit-edit-00 .unmasked').length") == 1
    page.find_element("tag name", "body").send_keys("m")
    assert page.execute_script(read) == [inside, outside]


def test_changes_show_the_difference_from_the_source(page):
    page.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    watch(page, "edit-00", 1)
    page.execute_script("document.querySelector('.play-all').click()")
    page.execute_script("[...document.querySelectorAll('.segments button')].at(-1).click()")
    read = """
      const context = document.querySelector("#edit-edit-00 .panel.variant canvas").getContext("2d");
      return [8, 40].map((at) => Math.max(...context.getImageData(at, at, 1, 1).data.slice(0, 3)));
    """
    patch, rest = page.execute_script(read)
    assert patch > 100 > 20 > rest


@pytest.mark.parametrize(("section", "column"), [("#scores", "psnr/outside"), ("#results", "warp_error")])
def test_tables_sort_by_any_column(page, section, column):
    names = page.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ' thead th')].map(h => h.innerText)", section
    )
    place = next(index for index, name in enumerate(names) if column in name)
    head(page, section, column)
    first = numbers(rows_of(page, section), place)
    assert first == sorted(first, reverse=column != "warp_error")
    head(page, section, column)
    assert numbers(rows_of(page, section), place) == first[::-1]
    script = "return document.querySelectorAll(arguments[0] + ' th:not([aria-sort=none])[aria-sort]').length"
    assert page.execute_script(script, section) == 1


@pytest.mark.slow
def test_filters_hold_for_videos_tables_and_plots(page):
    assert len(shown_edits(page)) == 9
    assert len(rows_of(page, "#results")) == 36
    choose(page, "", "shape")
    assert shown_edits(page) == ["edit-edit-01", "edit-edit-04", "edit-edit-07"]
    assert len(rows_of(page, "#results")) == 12
    page.find_element("css selector", "input[type=search]").send_keys("NUMBER 4")
    assert shown_edits(page) == ["edit-edit-04"]
    points = "return document.querySelectorAll('#plots .wide .point').length"
    before = wait(page, points)
    page.execute_script("document.querySelectorAll('.chip-button')[1].click()")
    assert len(rows_of(page, "#results")) == 3
    assert page.execute_script(points) == before - 1
    assert page.execute_script("return document.querySelectorAll('#edit-edit-04 .panel:not([hidden])').length") == 4


def test_videos_come_before_numbers(page):
    order = "return [...document.querySelectorAll('main > section')].map((section) => section.id)"
    assert page.execute_script(order) == ["edits", "scores", "plots", "results", "provenance"]


@pytest.mark.slow
def test_choices_outlast_a_reload(page):
    choose(page, "", "shape")
    choose(page, "score", "warp_error@1")
    choose(page, "order", "worst")
    page.find_element("css selector", "input[type=search]").send_keys("number")
    page.execute_script("document.querySelectorAll('.chip-button')[1].click()")
    page.execute_script("[...document.querySelectorAll('.segments button')].at(-1).click()")
    page.execute_script("const s = arguments[0]; s.value = 320; s.dispatchEvent(new Event('input'))", size_slider(page))
    before = shown_edits(page), page.execute_script("return state.view"), page.current_url
    page.refresh()
    assert (shown_edits(page), page.execute_script("return state.view"), page.current_url) == before
    assert len(before[0]) == 3
    fields = "return [...document.querySelectorAll('.choice select')].map((field) => field.value)"
    assert {"shape", "warp_error@1", "worst"} <= set(page.execute_script(fields))
    assert page.find_element("css selector", "input[type=search]").get_attribute("value") == "number"
    assert (
        page.execute_script("return document.querySelectorAll('.chip-button')[1].getAttribute('aria-pressed')")
        == "false"
    )
    assert page.execute_script("return document.querySelector('.gallery').style.getPropertyValue('--size')") == "320px"


def size_slider(browser):
    return browser.find_element("css selector", ".tools input[type=range]")


def test_an_address_that_asks_for_what_is_not_there_is_harmless(page, written):
    page.get(f"{written.as_uri()}?category=none&metric=%3Cimg%3E&hide=nobody&size=x&view=toString&text=%3Cb%3E")
    assert page.execute_script("return [state.category, state.view, state.size, state.hidden.size]") == [
        "",
        "frames",
        None,
        0,
    ]
    assert shown_edits(page) == []
    assert page.get_log("browser") == []


def pixel(browser, share):
    """The brightest channel of the enlarged picture at a share of its width, low in it, and the same of its patch."""
    script = """
      const canvas = document.querySelector("#viewer canvas"), context = canvas.getContext("2d");
      return [...context.getImageData(canvas.width * arguments[0], 8, 1, 1).data.slice(0, 3)];
    """
    return np.array(browser.execute_script(script, share))


@pytest.mark.slow
def test_a_tile_enlarges_and_is_wiped_against_the_source(page):
    page.execute_script("document.querySelector('.play-all').click()")
    page.execute_script("document.getElementById('edit-edit-00').scrollIntoView()")
    watch(page, "edit-00", 1)
    page.execute_script("document.querySelectorAll('#edit-edit-00 button.picture')[1].click()")
    wait(page, "return document.querySelector('#viewer').open")
    sides = "return [...document.querySelectorAll('#viewer .side')].map((side) => side.textContent)"
    assert page.execute_script(sides) == ["source", "full"]
    stage = page.execute_script("return document.querySelector('#viewer .stage').getBoundingClientRect().width")
    assert stage > 400
    patches = [counting(0)[0, 4, 4].astype(int), counting(500)[0, 4, 4].astype(int)]  # of source and edit

    def wipe(share):
        page.execute_script(
            "const w = document.querySelector('#viewer input[type=range]');"
            "w.value = arguments[0]; w.dispatchEvent(new Event('input'))",
            share,
        )

    for share, expected in ((50, patches[0]), (0, patches[1])):
        wipe(share)
        assert np.abs(pixel(page, 0.1) - expected).max() < 40  # colours are stored at half the size
    choose_in_viewer(page, "nothing")
    wipe(100)
    assert np.abs(pixel(page, 0.1) - patches[1]).max() < 40
    page.find_element("tag name", "body").send_keys("\ue014")  # the right arrow
    assert page.execute_script(sides) == ["source", "tau 1"]
    page.find_element("tag name", "body").send_keys("\ue00c")  # escape
    wait(page, "return !document.querySelector('#viewer').open")


def choose_in_viewer(browser, text):
    script = """
      const field = document.querySelector("#viewer select");
      field.value = [...field.options].find((option) => option.text === arguments[0]).value;
      field.dispatchEvent(new Event("change"));
      field.blur();
    """
    browser.execute_script(script, text)


@pytest.mark.slow
def test_edits_are_ordered_by_a_score(page, written):
    choose(page, "score", "psnr/outside@1")
    choose(page, "order", "worst")
    lines = (written.parent / "evaluation" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    values = {r["edit"]: r["value"] for r in rows if (r["variant"], r["metric"]) == ("full", "psnr/outside@1")}
    assert shown_edits(page) == [f"edit-{edit}" for edit in sorted(values, key=values.get)]


def test_plots_draw_every_variant(page):
    wait(page, "return document.querySelectorAll('#plots .effect').length === 12")  # three variants in four metrics
    assert page.execute_script("return document.querySelectorAll('#plots .wide .point .whisker').length") == 8
    assert page.execute_script("return document.querySelectorAll('#plots .trend').length") == 4
    clipped = """
      return [...document.querySelectorAll("#plots svg text")].filter((text) => {
        const a = text.getBoundingClientRect(), b = text.closest(".card").getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
      }).map((text) => text.textContent);
    """
    assert page.execute_script(clipped) == []


@pytest.mark.slow
def test_the_playhead_of_curves_follows_the_videos(page):
    page.execute_script("document.querySelector('#edit-edit-02').scrollIntoView()")
    page.execute_script("document.querySelector('#edit-edit-02 details').open = true")
    wait(page, "return document.querySelector('#edit-edit-02 .playhead')")
    moved = "return document.querySelector('#edit-edit-02 .playhead').getAttribute('transform')"
    first = wait(page, moved)
    wait(page, f"return (() => {{ {moved} }})() !== arguments[0]", first)
    assert page.execute_script("return document.querySelectorAll('#edit-edit-02 path.broad').length") == 5
    legend = """
      const drawn = (item) => item.querySelector("path").getAttribute("class");
      return [...document.querySelectorAll("#edit-edit-02 .legend li")].map((item) => [item.textContent, drawn(item)]);
    """
    assert page.execute_script(legend)[:2] == [["source", "curve source"], ["full", "marker c0"]]


def test_texts_stay_texts(page):
    assert page.execute_script("return window.hacked") is None
    assert HOSTILE in page.execute_script("return document.querySelectorAll('#edit-edit-01 q')[1].textContent")
    assert (
        page.execute_script(
            "return document.querySelectorAll('main img, main b:not(figcaption b), main script').length"
        )
        == 0
    )
    assert "<b>bold" in page.execute_script("return document.getElementById('bar').textContent")


def resize(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize("width", [380, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    resize(page, width)
    wait(page, "return document.querySelectorAll('#plots .effect').length")
    assert wait(page, "return document.documentElement.scrollWidth <= arguments[0]", width)  # once it is laid out again
    cut = """
      const right = (element) => element.getBoundingClientRect().right;
      return [...document.querySelectorAll("select, .choice")].filter((field) => right(field) > innerWidth).length;
    """
    assert page.execute_script(cut) == 0


@pytest.mark.parametrize("width", [380, 1280, 1720])
def test_sixteen_metrics_of_nine_variants_do_not_scroll_sideways(browser, wide, width):
    browser.get(wide.as_uri())
    resize(browser, width)
    wait(browser, "return document.documentElement.clientWidth <= arguments[0]", width)
    fits = "const box = document.querySelector('#scores .scroll'); return box.scrollWidth <= box.clientWidth"
    assert wait(browser, fits)
    cells = "return [...document.querySelectorAll('#scores tbody tr')].map((row) => row.cells.length)"
    assert browser.execute_script(cells) == [17] * 9
    if width == 380:  # each variant is a card, whose lines name their metrics
        named = """
          const cells = [...document.querySelectorAll("#scores tbody tr:first-child td")];
          return cells.map((cell) => getComputedStyle(cell, "::before").content);
        """
        names = browser.execute_script(named)
        assert len(names) == 16
        assert any("psnr/outside" in name for name in names)


@pytest.mark.slow
def test_sixty_edits_of_eight_variants(browser, tmp_path, record_property):
    """A page of 600 videos: how large, how many decoders, how long a sort keeps the browser busy."""
    path = make_run(tmp_path, 60, ("full", *(f"variant {number}" for number in range(1, 8))))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(path.as_uri())
    browser.set_script_timeout(300)
    measured = browser.execute_async_script("""
      const done = arguments[0], frame = () => new Promise(requestAnimationFrame), longest = [];
      (async () => {
        document.getElementById("edits").scrollIntoView();
        let before = performance.now(), most = 0;
        const rows = [...document.querySelectorAll(".edit")];
        const loaded = () => rows.filter((row) => row.querySelector("canvas").width > 0).length;
        for (let step = 0; step < 80; step += 1) {
          scrollBy(0, 200);
          await frame();
          longest.push(performance.now() - before);
          before = performance.now();
          most = Math.max(most, loaded());
        }
        const button = [...document.querySelectorAll("#results thead button")].at(-1);
        before = performance.now();
        button.click();
        document.body.getBoundingClientRect();
        const sort = performance.now() - before;
        done({ median: longest.sort((a, b) => a - b)[40], worst: longest.at(-1), sort, most });
      })();
    """)
    assert len(shown_edits(browser)) == 60
    assert len(rows_of(browser, "#results")) == 480
    assert measured["most"] < 30  # of 60 rows
    assert path.stat().st_size < 25e6
    for name, value in {"megabytes": path.stat().st_size / 1e6, **measured}.items():
        record_property(name, value)
        print(f"{name}: {value:.4g}")
