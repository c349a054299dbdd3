"""The page in headless Chromium, served by the command as its users start it."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser_checks import BARE, CONTRAST, open_browser
from canned_predictor import CannedPredictor
from PIL import Image

import artifactnet
from artifactnet.demo.analysis import Analyst
from artifactnet.demo.examples import EXAMPLES
from artifactnet.demo.view import percent
from artifactnet.types import Instance, Region

pytest.importorskip("gradio", reason="needs the extra demo")

MAX_BYTES, MAX_PIXELS = 300_000, 1_000_000
MODEL = "student-nano"  # answers sooner than the default
PHOTO = EXAMPLES[0].path
SECONDS = 60_000  # milliseconds that a busy machine may take
WIDER = "() => document.documentElement.scrollWidth - innerWidth"
OPACITY = "() => getComputedStyle(document.querySelector('.an-heat')).opacity"
# a file is dropped on, or pasted into, the page
SEND = """([kind, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  if (name) transfer.items.add(new File([bytes], name));
  const options = {bubbles: true, cancelable: true};
  document.body.dispatchEvent(kind === 'drop'
    ? new DragEvent('drop', {...options, dataTransfer: transfer})
    : new ClipboardEvent('paste', {...options, clipboardData: transfer}));
}"""


class Server:
    """`artifactnet demo` with a packaged model, and a proxy that nothing should ask."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder
        self.proxy = socket.create_server(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{self.proxy.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        environment = os.environ | dict.fromkeys(names, proxy) | {"TMPDIR": str(folder)}
        options = [
            "--port",
            "0",
            "--model",
            MODEL,
            "--max-bytes",
            str(MAX_BYTES),
            "--max-pixels",
            str(MAX_PIXELS),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "artifactnet", "demo", *options],
            stdout=subprocess.PIPE, stderr=(folder.parent / "stderr").open("w"), text=True,
            env=environment,
        )  # fmt: skip
        timer = threading.Timer(120, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.fullmatch(r"page at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert found, self.said()
        self.address = found[1]

    def said(self) -> str:
        return (self.temporary.parent / "stderr").read_text()

    def files(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "temporary"
    folder.mkdir()
    running = Server(folder)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as chromium:
        yield chromium


@pytest.fixture
def visit(browser, server):
    """Opens the page for one visitor; complaints, and requests to elsewhere, fail the test."""
    contexts, problems = [], []

    def opener(width=1200, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(SECONDS)
        contexts.append(context)
        page = context.new_page()

        def asked(request):
            if not request.url.startswith((server.address, "data:", "blob:")):
                problems.append(f"request: {request.url}")

        page.on("request", asked)
        page.on("console", lambda m: m.type == "error" and problems.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.goto(server.address)
        page.wait_for_selector(".an-drop")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert problems == []


def choose(page, name, content):
    page.set_input_files("input[type=file]", {"name": name, "mimeType": "", "buffer": content})


def wait_for_answer(page, name):
    """The text of the verdict about an image of that name."""
    page.wait_for_selector(f".an-verdict bdi:text-is({json.dumps(name)})")
    return page.inner_text(".an-verdict")


def wait_for_methods(page):
    page.wait_for_selector("#an-method input[value=grad_cam]")


def png(seed, size=(90, 120)):
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size[::-1], Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def shown_pixels(page):
    """The image as it is shown, beneath the heatmap."""
    uri = page.get_attribute(".an-image", "src")
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_an_upload_gets_the_verdict_of_the_library(visit):
    page = visit()
    choose(page, "light house.jpg", PHOTO.read_bytes())
    text = wait_for_answer(page, "light house.jpg")
    expected = artifactnet.load_model(MODEL).predict(str(PHOTO))
    assert percent(expected.probability) in text
    assert "448 \u00d7 299 pixels" in text
    box = page.locator(".an-layers").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(448 / 299, rel=0.01)
    assert box["height"] < 0.6 * 900  # the slider is in sight
    assert page.locator(".an-heat").bounding_box() == box


def test_heatmap_changes_with_the_method_and_back(visit):
    page = visit()
    page.click("[data-example='1']")
    wait_for_answer(page, EXAMPLES[1].caption)
    own = page.get_attribute(".an-heat", "src")
    wait_for_methods(page)
    assert page.locator("#an-method input").count() == 2  # no attention in this network
    page.click("#an-method label:has-text('Grad-CAM')")
    page.wait_for_selector("figcaption:has-text('cannot be compared')")
    assert page.get_attribute(".an-heat", "src") != own
    page.click("[data-example='0']")  # the method that was chosen stays
    wait_for_answer(page, EXAMPLES[0].caption)
    assert "cannot be compared" in page.inner_text("figcaption")
    page.click("#an-method label:has-text('Predicted heatmap')")
    page.wait_for_selector("figcaption:has-text('Highest value here')")


def test_slider_changes_the_opacity_in_the_browser(visit):
    page = visit()
    page.click("[data-example='2']")
    wait_for_answer(page, EXAMPLES[2].caption)
    wait_for_methods(page)
    assert page.evaluate(OPACITY) == "0.6"
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.focus("#an-opacity input[type=range]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"({OPACITY})() === '0.65'")
    page.keyboard.press("Home")
    page.wait_for_function(f"({OPACITY})() === '0'")
    page.keyboard.press("End")
    page.wait_for_function(f"({OPACITY})() === '1'")
    assert [url for url in asked if "queue" in url] == []
    page.click("[data-example='3']")  # the opacity that was chosen stays
    wait_for_answer(page, EXAMPLES[3].caption)
    assert page.evaluate(OPACITY) == "1"


def test_bad_files_get_one_sentence_and_the_page_goes_on(visit):
    page = visit()
    photo = PHOTO.read_bytes()
    large = io.BytesIO()
    Image.new("L", (1001, 1000)).save(large, "PNG")
    bad = {
        "notes.txt": (b"no image at all", "not an image that Pillow can read."),
        "half.jpg": (photo[: len(photo) // 2], "truncated or damaged image"),
        "empty.png": (b"", "the file is empty."),
        "bomb.png": (large.getvalue(), "1001x1000 pixels are above this server's limit"),
        "big.bin": (bytes(MAX_BYTES + 1), "0.3 MB are more than the 0.3 MB"),
        "<img src=x onerror=alert(1)>.txt": (b"x", "not an image"),
    }
    choose(page, "good.jpg", photo)
    wait_for_answer(page, "good.jpg")
    for name, (content, message) in bad.items():
        choose(page, name, content)
        page.wait_for_function(
            "(name) => document.querySelector('.an-error')?.innerText.startsWith(name)", arg=name
        )
        text = page.inner_text(".an-error")
        assert message in text
        assert "\n" not in text
        assert page.locator(".an-verdict, .an-layers, #an-opacity").count() == 0  # of another image
    choose(page, "good again.jpg", photo)
    wait_for_answer(page, "good again.jpg")
    assert page.locator(".an-error").count() == 0


def test_two_visitors_at_once_see_their_own_images(visit):
    visitors = {name: visit() for name in ("anna.png", "bert.png")}
    files = {name: png(seed) for seed, name in enumerate(visitors)}
    for name, page in visitors.items():
        choose(page, name, files[name])
    for name, page in visitors.items():
        wait_for_answer(page, name)
    for page in visitors.values():
        wait_for_methods(page)
        page.click("#an-method label:has-text('Grad-CAM')")
    for name, page in visitors.items():
        page.wait_for_selector("figcaption:has-text('cannot be compared')")
        wait_for_answer(page, name)
        own = np.asarray(Image.open(io.BytesIO(files[name]))).astype(int)
        assert np.abs(shown_pixels(page) - own).mean() < 6
        other = np.asarray(Image.open(io.BytesIO(files[(set(files) - {name}).pop()]))).astype(int)
        assert np.abs(shown_pixels(page) - other).mean() > 30


def test_an_image_is_dropped_or_pasted_anywhere(visit):
    page = visit()
    for kind in ("drop", "paste"):
        page.evaluate(SEND, [kind, f"{kind}.png", base64.b64encode(png(3)).decode()])
        wait_for_answer(page, f"{kind}.png")
        page.evaluate(SEND, [kind, "", ""])
        assert page.inner_text(".an-note") != ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(visit, scheme):
    page = visit(390, 844, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert page.evaluate(WIDER) == 0
    page.tap("[data-example='1']")
    wait_for_answer(page, EXAMPLES[1].caption)
    page.wait_for_function(
        "() => { const top = document.querySelector('.an-verdict').getBoundingClientRect().top;"
        " return top >= 0 && top < 200; }"
    )  # it is scrolled into sight
    wait_for_methods(page)
    page.tap("#an-card button")
    page.wait_for_selector("#an-card :text('Trained on')")
    assert page.evaluate(WIDER) == 0
    ours = "#an-head, #an-intake, #an-verdict, #an-figure, #an-text"
    texts = page.evaluate(f"() => document.querySelectorAll('{ours}').length")
    assert texts == 5
    low = [(ratio, text) for ratio, text in page.evaluate(CONTRAST) if ratio < 4.5]
    assert low == []


def test_the_page_works_by_keyboard(visit):
    page = visit()
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    assert page.evaluate(BARE) == []
    page.focus("input[type=file]")
    outline = "() => getComputedStyle(document.querySelector('.an-drop')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    for _ in range(100):
        page.wait_for_timeout(100)  # events arrive meanwhile
        if choosers:
            break
    choosers[0].set_files(str(PHOTO))
    wait_for_answer(page, PHOTO.name)
    wait_for_methods(page)
    page.focus("input[type=file]")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_answer(page, EXAMPLES[1].caption)
    page.focus("#an-method input:checked")
    page.keyboard.press("Tab")  # Gradio makes each choice a stop of its own
    page.keyboard.press("Space")
    page.wait_for_selector("figcaption:has-text('cannot be compared')")
    assert page.evaluate(BARE) == []


def send(address, route, body, content_type="application/json"):
    """The status of a request that no page makes."""
    request = urllib.request.Request(
        f"{address}gradio_api/{route}", body, {"Content-Type": content_type}
    )
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


def test_what_no_page_sends_is_refused(server, visit):
    page = visit()
    functions = page.evaluate("() => window.gradio_config.dependencies.map((each) => each.id)")
    for address in ("http://127.0.0.1:1/x.png", str(PHOTO), "/etc/passwd"):
        file = {"path": address, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file, None], "fn_index": functions[0], "session_hash": "x"}
        assert send(server.address, "queue/join", json.dumps(body).encode()) == 400
    assert send(server.address, "queue/join", b'{"data": "' + bytes(10**6) + b'"}') == 413
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nhi\r\n--x--\r\n'
    )
    assert send(server.address, "upload", form, "multipart/form-data; boundary=x") == 404
    for route in (f"file={PHOTO}", "file=/etc/passwd", "info", "proxy=http://127.0.0.1:1/"):
        assert send(server.address, route, None) == 404
    page.click("[data-example='0']")
    wait_for_answer(page, EXAMPLES[0].caption)


def test_nothing_is_kept_or_sent_elsewhere_and_sigterm_ends_the_page(server, browser):
    """The last test of this server, whose end an open page may complain about."""
    page = browser.new_page()
    page.set_default_timeout(SECONDS)
    page.goto(server.address)
    page.wait_for_selector(".an-drop")
    assert len(list(server.temporary.iterdir())) == 1  # Gradio's folder of files, and no other
    assert server.files() == []
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert list(server.temporary.iterdir()) == []
    server.proxy.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.proxy.accept()
    said = server.said()
    assert "Traceback" not in said, said
    assert said.endswith("page closed\n")
    page.close()


EVIL = "<img src=x onerror=alert(1)>"


class Writer(CannedPredictor):
    """Marks two regions and writes about them, some of it markup."""

    warnings = (EVIL,)

    def _answer(self, image, heatmaps):
        answer = super()._answer(image, heatmaps)
        answer.instances = (
            Instance("low-level-texture", (40, 30, 200, 120), 9000, 0.9, (), EVIL),
            Instance(EVIL, (200, 100, 300, 180), 400, 0.4, ()),
        )
        answer.regions, answer.tags = (Region((40, 30, 200, 120), EVIL),), ("wrong texture", EVIL)
        return answer


def test_regions_and_words_of_a_model_that_has_them(browser):
    from artifactnet.demo.page import open_page

    with open_page(Analyst(Writer()), f"runs/{EVIL}", port=0) as address:
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page, problems = context.new_page(), []
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))
        page.goto(address)
        page.click("[data-example='5']")
        wait_for_answer(page, EXAMPLES[5].caption)
        layers = page.locator(".an-layers").bounding_box()
        box = page.locator(".an-box").first.bounding_box()
        scale = layers["width"] / 448
        assert box["x"] - layers["x"] == pytest.approx(40 * scale, abs=1.5)
        assert box["width"] == pytest.approx(160 * scale, abs=1.5)
        assert page.locator(".an-box").count() == page.locator(".an-table tbody tr").count() == 2
        page.focus("#an-boxes input")
        page.keyboard.press("Space")
        page.wait_for_selector(".an-box", state="hidden")
        page.keyboard.press("Space")
        page.wait_for_selector(".an-box", state="visible")
        text = page.inner_text("#an-text")
        for part in ("textures (low level)", "six fingers", f"wrong texture, {EVIL}"):
            assert part in text
        page.click("#an-card button")
        page.wait_for_selector("#an-card :text('no card')")
        assert EVIL in page.inner_text("#an-card")
        assert page.evaluate(WIDER) == 0
        assert page.evaluate(BARE) == []
        assert page.locator("img[src=x]").count() == 0
        assert problems == []
        context.close()
