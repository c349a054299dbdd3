"""What the page shows of an analysis: words, numbers, pictures, and no markup by others."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from artifactnet.demo import view
from artifactnet.demo.analysis import Analysis
from artifactnet.demo.upload import Upload, UploadLimits
from artifactnet.explanation.overlay import overlay
from artifactnet.types import Instance, Prediction, Rationale, Region

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
LIMITS = (0.327, 0.839)


class Tags(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def analysis(probability=0.9, name="photo.jpg", warnings=(), size=(30, 50), method="segmentation",
             **fields):  # fmt: skip
    heatmap = np.zeros(size, np.float32)
    heatmap[20, 40] = 0.75
    pixels = np.full((*size, 3), 200, np.uint8)
    uncertain = LIMITS[0] <= probability < LIMITS[1]
    prediction = Prediction(probability, probability >= 0.5, uncertain=uncertain, **fields)
    return Analysis(Upload(name, pixels), prediction, method, heatmap, warnings)


def instance(category="low-level-texture", box=(10, 5, 20, 15), area=75, **fields):
    return Instance(category, box, area, 0.871, (), **fields)


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0, "0.0 %"), (0.327, "32.7 %"), (1, "100.0 %")),
        *((0.0002, "under 0.1 %"), (0.9999, "over 99.9 %")),
    ],
)
def test_nothing_looks_more_certain_than_it_is(share, text):
    assert view.percent(share) == text


@pytest.mark.parametrize(
    ("probability", "headline", "meaning"),
    [
        (0.95, "Looks made or edited by AI", "from 83.9 % up"),
        (0.6, "Not sure", "Between 32.7 % and 83.9 %"),
        (0.1, "No sign of AI found", "Below 32.7 %"),
    ],
)
def test_three_verdicts_in_plain_words(probability, headline, meaning):
    text = Tags(view.verdict_html(analysis(probability), 0.5, LIMITS)).text
    assert headline in text
    assert f"{100 * probability:.1f} %" in text
    assert meaning in text
    assert "photo.jpg, 50 \u00d7 30 pixels" in text


def test_a_model_without_limits_says_that_it_was_not_calibrated():
    shown = replace(analysis(0.9).prediction, uncertain=False)
    text = Tags(view.verdict_html(replace(analysis(0.9), prediction=shown), 0.5, None)).text
    assert "at or above 50.0 %" in text
    assert "not calibrated" in text
    assert "not sure" not in text


def test_score_is_shown_where_there_is_one():
    assert "Plausibility 0.42 of 1" in view.verdict_html(analysis(score=0.42), 0.5, LIMITS)
    assert "Plausibility" not in view.verdict_html(analysis(), 0.5, LIMITS)


def test_warnings_are_sentences():
    text = Tags(view.verdict_html(analysis(warnings=("one", "two.")), 0.5, LIMITS)).text
    assert "one.two." in text
    assert "Before you trust this" in text
    assert "Before you trust this" not in view.verdict_html(analysis(), 0.5, LIMITS)


def test_picture_keeps_its_proportions_and_layers_make_the_overlay():
    made = analysis(size=(300, 500))
    made.heatmap[:] = np.linspace(0, 1, 500, dtype=np.float32)
    made.upload.pixels[..., 0] = np.linspace(0, 255, 300, dtype=np.uint8)[:, None]
    tags = Tags(view.picture_html(made)).found
    image, heat = (fields for tag, fields in tags if tag == "img")
    assert "--ratio: 1.66667" in next(f["style"] for t, f in tags if f.get("class") == "an-layers")
    below, above = decode(image["src"]), decode(heat["src"]).convert("RGBA")
    assert below.size == (500, 300)
    assert above.width / above.height == pytest.approx(5 / 3, rel=0.01)
    above = np.asarray(above.resize(below.size), np.float64)
    share = 0.6 * above[..., 3:] / 255  # as CSS does
    blended = np.asarray(below.convert("RGB")) * (1 - share) + above[..., :3] * share
    expected = overlay(made.upload.pixels, made.heatmap, 0.6)
    assert np.abs(blended - expected).mean() < 3  # of 255; the image is compressed


def test_large_pictures_are_shown_smaller_and_small_ones_as_they_are():
    large = analysis(size=(30, 3000))
    image = next(f for t, f in Tags(view.picture_html(large)).found if t == "img")
    assert decode(image["src"]).width == view.PICTURE_SIDE
    assert (image["width"], image["height"]) == ("3000", "30")


def test_the_heatmap_is_described_for_those_who_cannot_see_it():
    heat = [f for t, f in Tags(view.picture_html(analysis())).found if t == "img"][1]
    assert heat["alt"].endswith("highest at 81 % from the left and 68 % from the top")


def test_legend_says_what_a_map_means():
    assert "Highest value here: 0.75" in view.picture_html(analysis())
    assert "cannot be compared" in view.picture_html(analysis(method="grad_cam"))
    none = replace(analysis(), heatmap=None)
    assert "No heatmap by this method" in view.picture_html(none)
    assert "has no heatmap" in view.picture_html(replace(none, method=None))


def test_regions_are_listed_and_drawn_with_one_number():
    regions = (instance(), instance("uncategorized", (0, 0, 50, 30), 1500))
    made = analysis(instances=regions, mask=np.zeros((30, 50), np.uint8))
    text = Tags(view.details_html(made)).text
    assert "1textures (low level)10 \u00d7 10 px5.0 % of the image87.1 %" in text
    assert "2uncategorized50 \u00d7 30 px100.0 % of the image" in text
    boxes = [
        f["style"] for t, f in Tags(view.picture_html(made)).found if f.get("class") == "an-box"
    ]
    assert "left: 20.000%; top: 16.667%; width: 20.000%; height: 33.333%" in boxes[0]
    colors = re.findall("--color: (#[0-9a-f]{6})", view.details_html(made))
    assert [re.search("#[0-9a-f]{6}", box)[0] for box in boxes] == colors


def test_too_many_regions_are_counted():
    made = analysis(instances=(instance(),) * 25, mask=np.zeros((30, 50), np.uint8))
    assert "5 smaller ones are left out" in view.details_html(made)
    assert view.picture_html(made).count('class="an-box"') == view.MAX_REGIONS


def test_no_region_found_differs_from_none_looked_for():
    assert view.details_html(analysis()) == ""
    assert "marks no region" in view.details_html(analysis(mask=np.zeros((30, 50), np.uint8)))
    assert "marks no region" in view.details_html(analysis(regions=()))


def test_what_a_model_writes_is_shown():
    words = Rationale("A bench.", "The left leg.", "It floats.", "all")
    made = analysis(
        explanation=words, tags=("wrong texture",), regions=(Region((1, 2, 3, 4), "x"),),
        instances=(instance(caption="a sixth finger"),),
    )  # fmt: skip
    text = Tags(view.details_html(made)).text
    for part in ("A bench.", "The left leg.", "It floats.", "wrong texture", "a sixth finger"):
        assert part in text
    bare = analysis(explanation=Rationale("", "", "", "just text"))
    assert "just text" in view.details_html(bare)


def test_text_from_data_and_models_is_escaped():
    made = analysis(
        name=EVIL, warnings=(EVIL,), tags=(EVIL,), explanation=Rationale(EVIL, EVIL, EVIL, EVIL),
        instances=(instance(EVIL, caption=EVIL),), mask=np.zeros((30, 50), np.uint8),
    )  # fmt: skip
    for html in (
        view.verdict_html(made, 0.5, LIMITS),
        view.picture_html(made),
        view.details_html(made),
        view.error_html(EVIL),
    ):
        for tag, fields in Tags(html).found:
            assert tag != "script"
            assert not any(name.startswith("on") for name in fields)
            assert fields.get("src", "data:").startswith("data:")
        assert "<script" not in html


def test_an_error_is_one_sentence():
    assert Tags(view.error_html("x.txt: no\nimage")).text == "x.txt: no image."


def test_intake_names_limits_and_is_no_template():
    html = view.intake_html(UploadLimits(3_000_000, 8_000_000))
    assert 'data-bytes="3000000"' in html
    assert "3 MB and 8 megapixels" in html
    assert not {"${", "`", "{{"} & {html[i : i + n] for n in (1, 2) for i in range(len(html))}
    assert len(html) < 60_000
