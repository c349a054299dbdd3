"""A report in a real browser: headless Chromium opens the file from disk and uses it."""

import io

import numpy as np
import pytest
import report_samples as samples
from browser_checks import BARE, CONTRAST
from PIL import Image

from artifactnet.explanation.report.charts import draw_charts
from artifactnet.explanation.report.page import write_page

FULL = next(e["id"] for e in samples.entries(18) if len(e["layers"]) == 6)  # has every layer
FILLED = "() => [...document.querySelectorAll('.overlay')].filter(image => image.src).length"


def make(folder, entries, **changes):
    path = folder / "report.html"
    write_page(path, samples.head(entries, **changes), entries)
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make(tmp_path_factory.mktemp("report"), samples.entries(18))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with every kind of chart and note."""
    entries = samples.entries(18)
    charts, _ = draw_charts(samples.head(entries)["summary"])
    drawn = [{k: getattr(c, k) for k in ("name", "title", "description", "svg")} for c in charts]
    assert len(drawn) > 2
    folder = tmp_path_factory.mktemp("drawn")
    return make(folder, entries, charts=drawn, warnings=["Random weights."], notices=["Note."])


def choose(page, layer):
    page.locator(f"input[name=layer][value='{layer}']").check()


def card(page, number):
    return page.locator(f".card:has(a[href='#image={number}'])")


def shown(page):
    hrefs = page.locator(".card a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    return [int(href.removeprefix("#image=")) for href in hrefs]


def numbers(test=lambda entry: True, key=lambda entry: 0, count=18):
    return [e["id"] for e in sorted(filter(test, samples.entries(count)), key=key)]


def settled(page, number=0):
    """Waits until the pictures of a card are decoded."""
    card(page, number).scroll_into_view_if_needed()
    page.wait_for_function(
        "n => [...document.querySelectorAll(`.card a[href='#image=${n}'] img`)]"
        ".every(image => image.hidden || (image.complete && image.naturalWidth))",
        arg=number,
    )
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def opened(page, number, name):
    """Waits until the page of an image is drawn: browsers report a new fragment later."""
    page.wait_for_function(
        "([hash, name]) => location.hash === hash && !document.getElementById('detail').hidden"
        " && document.getElementById('detail-heading').textContent === name",
        arg=[f"#image={number}", name],
    )


def test_every_layer_changes_what_a_card_shows(visit, report):
    page = visit(report)
    entry = samples.entry(FULL)
    overlay = card(page, FULL).locator(".overlay")
    pictures, legends = {}, {}
    for layer, uri in entry["layers"].items():
        choose(page, layer)
        settled(page, FULL)
        legends[layer] = page.locator("#legend").inner_text()
        assert page.locator("#ramp").is_visible() == layer.startswith("heat:")
        assert overlay.get_attribute("src") == (None if layer == "image" else uri)
        assert overlay.is_visible() == (layer != "image")
        pictures[layer] = card(page, FULL).locator(".frame").screenshot()
    assert len(pictures) == 6
    assert len(set(pictures.values())) == len(pictures)
    assert len({legends[f"heat:{m['name']}"] for m in samples.METHODS}) == 3  # three scales
    assert "textures" in legends["mask"]
    assert "textures" not in legends["image"]


def test_opacity_changes_the_picture_and_nothing_else(visit, report):
    page = visit(report)

    def seen():
        settled(page, 1)
        png = card(page, 1).locator(".frame").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    before = seen()
    page.get_by_label("Opacity of the layer").fill("10")
    assert page.locator("#opacity-value").inner_text() == "10\u00a0%"
    assert (seen() != before).any()
    opacity = "node => getComputedStyle(node).opacity"
    assert float(card(page, 1).locator(".overlay").evaluate(opacity)) == pytest.approx(0.1)
    page.get_by_label("Opacity of the layer").fill("0")
    faint = seen()
    choose(page, "image")
    # the legend changes and moves the frame by a fraction of a pixel, which shows at its corners
    assert abs(faint - seen()).mean() < 0.01


def test_missing_layers_are_named(visit, tmp_path):
    entries = samples.entries(2)
    assert "annotation" not in entries[0]["layers"]
    del entries[1]["layers"]["heat:relevance"]
    del entries[1]["layers"]["image"]
    page = visit(make(tmp_path, entries))
    choose(page, "annotation")
    settled(page, 0)
    assert "nothing annotated" in card(page, 0).locator(".absence").inner_text()
    assert not card(page, 0).locator(".overlay").is_visible()
    choose(page, "heat:relevance")
    settled(page, 1)
    assert "No Relevance map" in card(page, 1).locator(".absence").inner_text()
    card(page, 1).locator("a").click()
    opened(page, 1, entries[1]["name"])
    words = page.locator("#detail-absence").inner_text()
    assert "No Relevance map" in words
    assert "missing from this report" in words
    assert not page.locator("#detail-overlay").is_visible()


def test_layers_lie_exactly_on_the_image_and_nothing_is_distorted(visit, tmp_path):
    entries = []
    for number, size in enumerate(samples.SIZES):
        entry = samples.entry(number)
        entry["width"], entry["height"] = size
        entry["thumb"] = samples.picture(size, 0, 192)
        entry["layers"] = {
            "image": samples.picture(size, 0, 640),
            "heat:relevance": samples.heat(size, 0, 0),
        }
        entries.append(entry)
    page = visit(make(tmp_path, entries))
    boxes = "all => all.map(i => i.getBoundingClientRect()).map(r => [r.x, r.y, r.width, r.height])"

    def check(width, height, base, overlay):
        assert base == pytest.approx(overlay, abs=0.01)
        assert min(base[2:]) >= 1
        longest = max(base[2:])
        assert base[2] == pytest.approx(max(1, longest * width / max(width, height)), abs=1)
        assert base[3] == pytest.approx(max(1, longest * height / max(width, height)), abs=1)

    for entry in entries:
        settled(page, entry["id"])
        found = card(page, entry["id"]).locator(".stack img").evaluate_all(boxes)
        check(entry["width"], entry["height"], *found)
        frame = card(page, entry["id"]).locator(".frame").evaluate_all(boxes)[0]
        assert max(found[0][2:]) == pytest.approx(min(frame[2:]), abs=0.01)
    for entry in entries:
        page.goto(f"{page.url.partition('#')[0]}#image={entry['id']}")
        opened(page, entry["id"], entry["name"])
        found = page.locator("#detail-stack img").evaluate_all(boxes)
        check(entry["width"], entry["height"], *found)


def test_filters_and_order(visit, report):
    page = visit(report)
    assert shown(page) == numbers()
    color = "low-level-color"
    for control, value, test in (
        ("#verdict", "wrong", lambda e: not e["correct"]),
        ("#verdict", "fake", lambda e: e["is_fake"]),
        ("#verdict", "real", lambda e: not e["is_fake"]),
        ("#generator", "1", lambda e: e["generator"] == "generator 1"),
        ("#category", color, lambda e: color in e["annotated"] + e["predicted"]),
    ):
        page.locator(control).select_option(value)
        expected = numbers(test)
        assert 0 < len(expected) < 18
        assert shown(page) == expected
        assert f"{len(expected)} of 18" in page.locator("#count").inner_text()
        page.locator("#filters .reset").click()
        assert shown(page) == numbers()
    for order, key in (
        ("fake", lambda e: -e["probability"]),
        ("real", lambda e: e["probability"]),
        ("sure", lambda e: -e["confidence"]),
        ("unsure", lambda e: e["confidence"]),
        ("share", lambda e: -e["artifact_share"]),
        ("name", lambda e: e["name"]),
        ("given", lambda e: e["id"]),
    ):
        page.locator("#order").select_option(order)
        assert shown(page) == numbers(key=key)


def test_confidence_search_and_their_combination(visit, report):
    page = visit(report)
    page.get_by_label("Confidence from").fill("70")
    page.get_by_label("Confidence to").fill("95")
    expected = numbers(lambda e: 0.6995 <= e["confidence"] <= 0.9505)
    assert 0 < len(expected) < 18
    assert shown(page) == expected
    page.locator("#verdict").select_option("fake")
    both = numbers(lambda e: 0.6995 <= e["confidence"] <= 0.9505 and e["is_fake"])
    assert shown(page) == both
    page.locator("#filters .reset").click()
    page.get_by_label("File name contains").fill(" IMAGE_01 ")
    assert shown(page) == list(range(10, 18))
    page.get_by_label("File name contains").fill("no such name")
    assert shown(page) == []
    assert page.get_by_text("No image matches").is_visible()
    page.get_by_role("button", name="Show all images").click()
    assert shown(page) == numbers()
    assert page.get_by_label("File name contains").input_value() == ""
    assert not page.get_by_text("No image matches").is_visible()


def test_page_of_an_image(visit, report):
    page = visit(report)
    entry = samples.entry(FULL)
    card(page, FULL).locator("a").click()
    opened(page, FULL, entry["name"])
    assert page.locator("#detail-heading").inner_text() == entry["name"]
    assert page.evaluate("document.activeElement.id") == "detail-heading"
    assert page.title().startswith(entry["name"])
    assert page.locator("#place").inner_text() == f"{FULL + 1} of 18 shown"
    assert not page.locator("#gallery").is_visible()
    facts = page.locator("#facts").inner_text()
    size = f"{entry['width']} \u00d7 {entry['height']} pixels"
    assert size in facts
    assert entry["generator"] in facts
    assert page.locator("#scores tr").count() == len(samples.METHODS)
    assert page.locator("#instances tr").count() == 1
    assert "81.3" in page.locator("#instances").inner_text()
    sources = set()
    for layer, uri in entry["layers"].items():
        choose(page, layer)
        assert page.locator("#detail-image").get_attribute("src") == entry["layers"]["image"]
        source = page.locator("#detail-overlay").get_attribute("src")
        assert source == (None if layer == "image" else uri)
        sources.add(source)
    assert len(sources) == 6
    page.go_back()
    page.locator("#gallery").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"#image={FULL}"
    settled(page, FULL)  # the layer chosen on its page is chosen here as well
    overlay = card(page, FULL).locator(".overlay")
    assert overlay.get_attribute("src") == entry["layers"]["annotation"]


def test_keyboard_and_links(visit, report):
    page = visit(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "images-heading"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    chosen = page.locator("input[name=layer]:checked").get_attribute("value")
    assert chosen == "heat:sliding_patch"
    page.locator("#verdict").select_option("fake")
    expected = numbers(lambda e: e["is_fake"])
    page.locator("#filters .reset").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    opened(page, expected[0], samples.entry(expected[0])["name"])
    assert page.locator("#previous").get_attribute("href") is None
    page.keyboard.press("ArrowLeft")
    assert page.url.endswith(f"#image={expected[0]}")
    page.keyboard.press("ArrowRight")
    opened(page, expected[1], samples.entry(expected[1])["name"])
    page.locator("#opacity").focus()
    page.keyboard.press("ArrowRight")  # belongs to the slider
    assert page.url.endswith(f"#image={expected[1]}")
    page.keyboard.press("Escape")
    page.locator("#gallery").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"#image={expected[1]}"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    page = visit(report, "#image=17")
    assert page.locator("#next").get_attribute("href") is None
    page.locator("#previous").click()
    opened(page, 16, samples.entry(16)["name"])
    page.go_back()
    opened(page, 17, samples.entry(17)["name"])
    other = visit(report, "#image=4711")
    assert "4711" in other.locator("#unknown-image").inner_text()
    assert other.locator("#gallery").is_visible()


def test_hostile_texts_show_as_text(visit, tmp_path):
    entries = [samples.entry(k, name) for k, name in enumerate(samples.HOSTILE)]
    for entry in entries:
        entry["generator"] = samples.HOSTILE[0]
        entry["warnings"] = [samples.HOSTILE[1]]
    failures = [{"name": name, "reason": samples.HOSTILE[0]} for name in samples.HOSTILE]
    title = samples.HOSTILE[1]
    page = visit(make(tmp_path, entries, title=title, failures=failures, notices=[title]))
    assert page.title() == title
    names = page.locator(".name").evaluate_all("all => all.map(n => n.textContent)")
    assert names == samples.SHOWN
    assert page.locator(".card img").count() == 2 * len(entries)
    settled(page)
    for entry, name in zip(entries, samples.SHOWN, strict=True):
        page.goto(f"{page.url.partition('#')[0]}#image={entry['id']}")
        opened(page, entry["id"], name)
        heading = page.locator("#detail-heading")
        assert heading.evaluate("node => node.textContent") == name
        assert page.locator("#image-warnings li").inner_text() == samples.HOSTILE[1]


RIGHT_TO_LEFT = "يد بستة أصابع\nفي الصورة"
TEXTS = [
    "Two people on a bench.\nTrees behind them.",
    '<script>alert(1)</script> & "quotes" </script>',
    "one\u2028two \u202egnp",
    "w" * 5000,
    RIGHT_TO_LEFT,
    "",
]


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A report with scores and explanations; the last image has neither."""
    entries = samples.entries(len(TEXTS) + 1)
    for entry, text in zip(entries, TEXTS, strict=False):
        entry["explanation"] = {"description": text, "regions": f"R {text}", "issues": text[::-1]}
        entry["score"] = 0.125 * (1 + entry["id"])
    return make(tmp_path_factory.mktemp("explained"), entries)


def part(page, name):
    return page.locator(f"#explanation-{name}").evaluate("node => node.textContent")


def test_explanations_show_as_text_beside_the_heatmap(visit, explained):
    page = visit(explained, "#image=0")
    opened(page, 0, samples.entry(0)["name"])
    assert part(page, "description") == TEXTS[0]
    assert part(page, "regions") == f"R {TEXTS[0]}"
    lines = page.locator("#explanation-description").inner_text().splitlines()
    assert lines == TEXTS[0].splitlines()
    boxes = [page.locator(i).bounding_box() for i in ("#detail-stack", "#explanation-part")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]  # side by side
    assert page.locator("#detail-overlay").is_visible()
    shown = [TEXTS[1], "one\ntwo \\u202egnp", TEXTS[3], RIGHT_TO_LEFT, "(nothing was written)"]
    for number, text in enumerate(shown, 1):
        page.locator("#next").click()
        opened(page, number, samples.entry(number)["name"])
        assert part(page, "description") == text
        score = 0.125 * (1 + number)
        assert page.locator("#score").inner_text() == f"{score:.3f}"
        bar, fill = (page.locator(i).bounding_box()["width"] for i in ("#score-bar", "#score-fill"))
        assert fill / (bar - 2) == pytest.approx(score, abs=0.01)  # within the border
        if text == RIGHT_TO_LEFT:
            left, right = page.locator("#explanation-description").evaluate("""node => {
              const range = document.createRange();
              range.selectNodeContents(node);
              const [text, box] = [range.getBoundingClientRect(), node.getBoundingClientRect()];
              return [text.left - box.left, box.right - text.right];
            }""")
            assert right < 2 < left
    assert page.locator("#explanation-part script").count() == 0
    page.locator("#next").click()  # one without score and explanation
    opened(page, 6, samples.entry(6)["name"])
    assert not page.locator("#score-part").is_visible()
    assert not page.locator("#explanation-part").is_visible()


def test_long_texts_fit_the_screen(visit, explained, tmp_path):
    for number in (0, 3, 4):
        page = visit(explained, f"#image={number}", width=400, height=800)
        opened(page, number, samples.entry(number)["name"])
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        boxes = [page.locator(i).bounding_box() for i in ("#detail-stack", "#explanation-part")]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]  # one below the other
    entries = samples.entries(8)
    entries[1] |= {"name": "x" * 200, "generator": "y" * 200}
    path = make(tmp_path, entries, failures=[{"name": "z" * 200, "reason": "not an image"}])
    for fragment in ("", "#image=1"):
        page = visit(path, fragment, width=320, height=640)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page = visit(explained, "#image=3", width=1100, height=600)
    opened(page, 3, samples.entry(3)["name"])
    page.locator("#explanation-regions").evaluate("node => node.scrollIntoView()")
    assert page.evaluate("window.scrollY") > 300
    top = page.locator("#detail-stack").bounding_box()["y"]
    assert 0 <= top < 600  # the picture stays in sight


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_and_contrast(visit, drawn, explained, scheme):
    for path, fragment in ((drawn, ""), (drawn, f"#image={FULL}"), (explained, "#image=0")):
        page = visit(path, fragment, color_scheme=scheme)
        assert page.evaluate(BARE) == []
        assert page.evaluate("[...document.images].filter(i => !i.hasAttribute('alt')).length") == 0
        assert page.locator("main").count() == page.locator("h1").count() == 1
        found = page.evaluate(CONTRAST)
        assert len(found) > 40
        assert [pair for pair in found if pair[0] < 4.5] == []


def test_empty_report_theme_and_no_script(visit, report, tmp_path):
    page = visit(make(tmp_path, [], charts=[]), color_scheme="light")
    assert page.get_by_text("no images").is_visible()
    background, colors, themes = "getComputedStyle(document.body).backgroundColor", [], []
    for _ in range(3):
        page.locator("#theme").click()
        themes.append(page.locator("#theme").inner_text())
        colors.append(page.evaluate(background))
    assert themes == ["Theme: light", "Theme: dark", "Theme: auto"]
    assert colors[0] == colors[2] != colors[1]
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == colors[1]
    page = visit(report, java_script_enabled=False)
    assert "JavaScript" in page.locator("noscript p").inner_text()
    assert page.get_by_text("Balanced accuracy").is_visible()
    assert not page.locator("#filters").is_visible()


def test_layers_are_filled_when_seen_or_printed(visit, tmp_path):
    page = visit(make(tmp_path, samples.entries(60)))
    settled(page)
    assert page.evaluate(FILLED) < 60
    page.pdf(path=tmp_path / "report.pdf")
    assert page.evaluate(FILLED) == 60
