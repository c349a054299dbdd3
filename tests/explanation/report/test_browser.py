"""A report in a real browser: headless Chromium opens the file from disk and uses it.

``REPORT_SCREENSHOTS=FOLDER`` keeps the screenshots, for people to look at.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import report_samples as samples

from artifactnet.explanation.report.charts import draw_charts
from artifactnet.explanation.report.page import write_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FULL = next(e["id"] for e in samples.entries(18) if len(e["layers"]) == 6)  # has every layer
BARE = """() => [...document.querySelectorAll('input, select, button, a')].filter(node => {
  const text = [...(node.labels ?? [])].map(label => label.textContent).join('')
    + node.textContent + (node.getAttribute('aria-label') ?? '')
    + [...node.querySelectorAll('img')].map(image => image.alt).join('');
  return !text.trim();
}).map(node => node.outerHTML)"""
FILLED = "() => [...document.querySelectorAll('.overlay')].filter(image => image.src).length"
# WCAG contrast of every visible text against the first opaque background behind it
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const rgba = (color) => {
    if (!known.has(color)) known.set(color, paint(color));
    return known.get(color);
  };
  const paint = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = rgba(color).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return rgba(color)[3] === 255 ? color : behind(node.parentElement);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest('script, option')) continue;
    const style = getComputedStyle(node);
    const color = node instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [luminance(color), luminance(behind(node))].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"needs Chromium: none of {', '.join(NAMES)} is on the path")
    # Chromium refuses its sandbox to root
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


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


@pytest.fixture
def visit(browser):
    """Opens reports; whatever a page complains about or asks for fails the test."""
    contexts, problems = [], []

    def opener(path, fragment="", width=1100, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        address = Path(path).as_uri()

        def asked(request):
            if request.url.partition("#")[0] != address and not request.url.startswith("data:"):
                problems.append(f"request: {request.url}")

        page.on("request", asked)
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.goto(address + fragment)
        page.wait_for_load_state("load")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def keep(tmp_path):
    """Stores a screenshot, where asked for beside those of other tests."""
    folder = Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def store(page, name):
        page.screenshot(path=folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 5000

    return store


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
    pictures = {}
    for layer, uri in entry["layers"].items():
        choose(page, layer)
        settled(page, FULL)
        assert overlay.get_attribute("src") == (None if layer == "image" else uri)
        assert overlay.is_visible() == (layer != "image")
        pictures[layer] = card(page, FULL).locator(".frame").screenshot()
    assert len(pictures) == 6
    assert len(set(pictures.values())) == len(pictures)


def test_opacity_changes_the_picture_and_nothing_else(visit, report):
    page = visit(report)
    frame = card(page, 1).locator(".frame")
    settled(page, 1)
    before = frame.screenshot()
    slider = page.get_by_label("Opacity of the layer")
    slider.fill("10")
    assert page.locator("#opacity-value").inner_text() == "10\u00a0%"
    settled(page, 1)
    assert frame.screenshot() != before
    opacity = "node => getComputedStyle(node).opacity"
    assert float(card(page, 1).locator(".overlay").evaluate(opacity)) == pytest.approx(0.1)
    slider.fill("0")
    settled(page, 1)
    faint = frame.screenshot()
    choose(page, "image")
    settled(page, 1)
    assert frame.screenshot() == faint


def test_a_layer_that_is_missing_is_said_in_words(visit, report):
    page = visit(report)
    entries = samples.entries(18)
    choose(page, "annotation")
    for number in (0, 2):
        assert "annotation" not in entries[number]["layers"]
        settled(page, number)
        assert not card(page, number).locator(".overlay").is_visible()
    assert card(page, 0).locator(".absence").inner_text() == "Real image: nothing annotated"
    assert card(page, 2).locator(".absence").inner_text() == "Artifacts not annotated"
    choose(page, "mask")
    bare = next(e["id"] for e in entries if not e["predicted"])
    settled(page, bare)
    assert card(page, bare).locator(".absence").inner_text() == "No artifact region predicted"
    card(page, bare).locator("a").click()
    opened(page, bare, entries[bare]["name"])
    assert page.locator("#detail-absence").inner_text() == "No artifact region predicted"
    assert not page.locator("#detail-overlay").is_visible()


def test_a_method_that_failed_for_one_image(visit, tmp_path):
    entries = samples.entries(2)
    del entries[1]["layers"]["heat:relevance"]
    del entries[1]["layers"]["image"]
    page = visit(make(tmp_path, entries))
    settled(page, 1)
    assert card(page, 1).locator(".absence").inner_text() == "No Relevance map for this image"
    card(page, 1).locator("a").click()
    opened(page, 1, entries[1]["name"])
    words = page.locator("#detail-absence").inner_text()
    assert "No Relevance map for this image" in words
    assert "missing from this report" in words


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


@pytest.mark.parametrize(
    ("control", "value", "test"),
    [
        ("#verdict", "wrong", lambda e: not e["correct"]),
        ("#verdict", "fake", lambda e: e["is_fake"]),
        ("#verdict", "real", lambda e: not e["is_fake"]),
        ("#generator", "1", lambda e: e["generator"] == "generator 1"),
        (
            "#category",
            "low-level-color",
            lambda e: "low-level-color" in e["annotated"] + e["predicted"],
        ),
    ],
)
def test_filters_that_are_chosen(visit, report, control, value, test):
    page = visit(report)
    assert shown(page) == numbers()
    page.locator(control).select_option(value)
    expected = numbers(test)
    assert 0 < len(expected) < 18
    assert shown(page) == expected
    assert page.locator("#count").inner_text() == f"Showing {len(expected)} of 18 images"
    assert page.locator("#count").get_attribute("aria-live") == "polite"
    page.locator("#filters .reset").click()
    assert shown(page) == numbers()


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


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("fake", lambda e: -e["probability"]),
        ("real", lambda e: e["probability"]),
        ("sure", lambda e: -e["confidence"]),
        ("unsure", lambda e: e["confidence"]),
        ("share", lambda e: -e["artifact_share"]),
        ("name", lambda e: e["name"]),
        ("given", lambda e: e["id"]),
    ],
)
def test_order(visit, report, order, key):
    page = visit(report)
    page.locator("#order").select_option("fake" if order == "given" else "given")
    page.locator("#order").select_option(order)
    assert shown(page) == numbers(key=key)


def test_theme_button_goes_round(visit, report, keep):
    page = visit(report, color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    button = page.locator("#theme")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.inner_text(), page.evaluate(background)))
    assert [text for text, _ in seen] == ["Theme: light", "Theme: dark", "Theme: auto"]
    assert seen[0][1] == seen[2][1] == light
    assert seen[1][1] != light
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == seen[1][1]
    keep(page, "dark")


def test_page_of_an_image(visit, report, keep):
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
    keep(page, "image")
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


def test_keyboard_alone(visit, report):
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


def test_last_image_and_links_between_images(visit, report):
    page = visit(report, "#image=17")
    assert page.locator("#next").get_attribute("href") is None
    page.locator("#previous").click()
    opened(page, 16, samples.entry(16)["name"])
    page.go_back()
    opened(page, 17, samples.entry(17)["name"])
    page.locator("#back").click()
    page.locator("#gallery").wait_for()


def test_an_image_that_the_report_does_not_have(visit, report):
    page = visit(report, "#image=4711")
    assert page.get_by_text("This report has no image 4711.").is_visible()
    assert page.locator("#gallery").is_visible()


def test_legend_says_what_the_colours_mean(visit, report):
    page = visit(report)
    legend = page.locator("#legend")
    said = {"minmax": "cannot be compared", "probability": "can be compared", "model": "saved with"}
    for method in samples.METHODS:
        choose(page, f"heat:{method['name']}")
        assert said[method["scale"]] in legend.inner_text()
        assert page.locator("#ramp").is_visible()
    choose(page, "mask")
    assert not page.locator("#ramp").is_visible()
    assert "textures" in legend.inner_text()
    choose(page, "image")
    assert "textures" not in legend.inner_text()


def test_hostile_texts_show_as_text(visit, tmp_path, keep):
    entries = [samples.entry(k, name) for k, name in enumerate(samples.HOSTILE)]
    for entry in entries:
        entry["generator"] = samples.HOSTILE[0]
        entry["warnings"] = [samples.HOSTILE[1]]
    failures = [{"name": name, "reason": samples.HOSTILE[0]} for name in samples.HOSTILE]
    title = samples.HOSTILE[1]
    page = visit(make(tmp_path, entries, title=title, failures=failures, notices=[title]))
    assert page.title() == title
    assert page.locator(".name").evaluate_all("all => all.map(n => n.textContent)") == (
        samples.SHOWN
    )
    assert page.locator(".card img").count() == 2 * len(entries)
    settled(page)
    keep(page, "hostile")
    for entry, name in zip(entries, samples.SHOWN, strict=True):
        page.goto(f"{page.url.partition('#')[0]}#image={entry['id']}")
        opened(page, entry["id"], name)
        heading = page.locator("#detail-heading")
        assert heading.evaluate("node => node.textContent") == name
        assert page.locator("#image-warnings li").inner_text() == samples.HOSTILE[1]


RIGHT_TO_LEFT = "يد بستة أصابع\nفي الصورة"
SAID = [
    "Two people on a bench.\nTrees behind them.",
    '<script>alert(1)</script> & "quotes" </script>',
    "one\u2028two \u202egnp",
    "w" * 5000,
    RIGHT_TO_LEFT,
    "",
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A report with scores and explanations; the last image has neither."""
    entries = samples.entries(len(SAID) + 1)
    for entry, text in zip(entries, SAID, strict=False):
        entry["explanation"] = {"description": text, "regions": f"R {text}", "issues": text[::-1]}
        entry["score"] = 0.125 * (1 + entry["id"])
    return make(tmp_path_factory.mktemp("told"), entries)


def part(page, name):
    return page.locator(f"#explanation-{name}").evaluate("node => node.textContent")


def test_explanations_show_as_text_beside_the_heatmap(visit, told, keep):
    page = visit(told, "#image=0")
    opened(page, 0, samples.entry(0)["name"])
    assert part(page, "description") == SAID[0]
    assert part(page, "regions") == f"R {SAID[0]}"
    for title in ("Image description", "Problematic regions", "Analysis of issues"):
        assert page.get_by_role("heading", name=title).is_visible()
    assert page.locator("#explanation-description").inner_text().splitlines() == [
        "Two people on a bench.",
        "Trees behind them.",
    ]
    boxes = [page.locator(i).bounding_box() for i in ("#detail-stack", "#explanation-part")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]  # side by side
    assert page.locator("#detail-overlay").is_visible()
    keep(page, "told")
    for number, text in ((1, SAID[1]), (2, "one\ntwo \\u202egnp"), (3, SAID[3])):
        page.locator("#next").click()
        opened(page, number, samples.entry(number)["name"])
        assert part(page, "description") == text
    assert page.locator("#explanation-part script").count() == 0


def test_scores_are_shown_with_a_bar_of_their_length(visit, told):
    page = visit(told, "#image=2")
    opened(page, 2, samples.entry(2)["name"])
    assert page.locator("#score").inner_text() == "0.375"
    bar, fill = (page.locator(i).bounding_box()["width"] for i in ("#score-bar", "#score-fill"))
    assert fill / (bar - 2) == pytest.approx(0.375, abs=0.01)  # within the border


def test_right_to_left_text_starts_at_the_right(visit, told, keep):
    page = visit(told, "#image=4")
    opened(page, 4, samples.entry(4)["name"])
    assert part(page, "description") == RIGHT_TO_LEFT
    left, right = page.locator("#explanation-description").evaluate("""node => {
      const range = document.createRange();
      range.selectNodeContents(node);
      const [text, box] = [range.getBoundingClientRect(), node.getBoundingClientRect()];
      return [text.left - box.left, box.right - text.right];
    }""")
    assert right < 2 < left
    keep(page, "told-right-to-left")


def test_what_is_not_there_takes_no_place(visit, told, report):
    page = visit(told, "#image=5")
    opened(page, 5, samples.entry(5)["name"])
    assert part(page, "description") == "(nothing was written)"
    page.locator("#next").click()  # one without score and explanation
    opened(page, 6, samples.entry(6)["name"])
    assert not page.locator("#score-part").is_visible()
    assert not page.locator("#explanation-part").is_visible()
    assert not page.get_by_text("Analysis of issues").is_visible()
    other = visit(report, "#image=0")
    assert not other.locator("#score-part").is_visible()
    assert not other.locator("#explanation-part").is_visible()


@pytest.mark.parametrize("number", range(len(SAID)))
def test_explanations_fit_a_narrow_screen(visit, told, keep, number):
    page = visit(told, f"#image={number}", width=400, height=800)
    opened(page, number, samples.entry(number)["name"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    boxes = [page.locator(i).bounding_box() for i in ("#detail-stack", "#explanation-part")]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]  # one below the other
    page.locator("#score-part").scroll_into_view_if_needed()
    keep(page, f"told-narrow-{number}")


def test_the_picture_stays_in_sight_beside_a_long_text(visit, told):
    page = visit(told, "#image=3", width=1100, height=600)
    opened(page, 3, samples.entry(3)["name"])
    page.locator("#explanation-regions").evaluate("node => node.scrollIntoView()")
    assert page.evaluate("window.scrollY") > 300
    top = page.locator("#detail-stack").bounding_box()["y"]
    assert 0 <= top < 600


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_explanations(visit, told, scheme):
    page = visit(told, "#image=0", color_scheme=scheme)
    opened(page, 0, samples.entry(0)["name"])
    found = page.evaluate(CONTRAST)
    assert any(text == "Analysis of issues" for _, text in found)
    assert [pair for pair in found if pair[0] < 4.5] == []


@pytest.mark.parametrize("fragment", ["", "#image=1"])
def test_narrow_screens_do_not_scroll_sideways(visit, tmp_path, keep, fragment):
    entries = samples.entries(8)
    entries[1]["name"] = "x" * 200
    entries[1]["generator"] = "y" * 200
    failures = [{"name": "z" * 200, "reason": "not an image"}]
    page = visit(make(tmp_path, entries, failures=failures), fragment, width=320, height=640)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator("#images").scroll_into_view_if_needed()
    keep(page, f"narrow{fragment.replace('#', '-').replace('=', '-')}")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("fragment", ["", f"#image={FULL}"])
def test_names_and_contrast(visit, drawn, keep, scheme, fragment):
    page = visit(drawn, fragment, color_scheme=scheme)
    assert page.evaluate(BARE) == []
    assert page.evaluate("[...document.images].filter(i => !i.hasAttribute('alt')).length") == 0
    assert page.locator("main").count() == page.locator("h1").count() == 1
    found = page.evaluate(CONTRAST)
    assert len(found) > 40
    assert [pair for pair in found if pair[0] < 4.5] == []
    if not fragment:
        alternative = card(page, FULL).locator("img").first.get_attribute("alt")
        assert "Called" in alternative
        assert "probability of fake" in alternative
        keep(page, f"summary-{scheme}")
        page.locator("#images-heading").evaluate("node => node.scrollIntoView()")
        settled(page, 0)
        keep(page, f"gallery-{scheme}")


def test_without_script_the_summary_still_reads(visit, report):
    page = visit(report, java_script_enabled=False)
    assert "needs JavaScript" in page.locator("noscript p").inner_text()
    assert page.get_by_text("Balanced accuracy").is_visible()
    assert not page.locator("#filters").is_visible()


def test_empty_report(visit, tmp_path):
    page = visit(make(tmp_path, [], charts=[]))
    assert page.get_by_text("This report has no images.").is_visible()
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: light"


def test_printing_shows_the_chosen_layer_of_every_image(visit, tmp_path):
    page = visit(make(tmp_path, samples.entries(60)))
    settled(page)
    assert page.evaluate(FILLED) < 60  # lazily: those out of view are empty
    page.pdf(path=tmp_path / "report.pdf")
    assert page.evaluate(FILLED) == 60


@pytest.mark.slow
def test_five_hundred_images_stay_fluid(visit, tmp_path, record_property):
    page = visit(make(tmp_path, samples.entries(500)))
    times = page.evaluate("""() => {
      const timed = (act) => {
        const start = performance.now();
        act();
        document.body.offsetHeight;  // the layout that follows
        return performance.now() - start;
      };
      const set = (id, value) => {
        const input = document.getElementById(id);
        input.value = value;
        input.dispatchEvent(new Event('input', {bubbles: true}));
      };
      return {
        filter: timed(() => set('verdict', 'fake')),
        all: timed(() => set('verdict', '')),
        search: timed(() => set('search', '12')),
        clear: timed(() => set('search', '')),
        order: timed(() => set('order', 'fake')),
        opacity: timed(() => set('opacity', '33')),
        layer: timed(() => document.querySelector("[value='heat:heatmap']").click()),
      };
    }""")
    record_property("milliseconds", times)
    print({name: round(value, 1) for name, value in times.items()})
    assert max(times.values()) < 2000
    assert len(shown(page)) == 500
    settled(page)
    assert page.evaluate(FILLED) < 100
