"""The charts: fit for a page, the same every time, and only where there is data."""

import io
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from artifactnet.explanation.report.charts import CHART_NAMES, MAX_ROWS, draw_charts, short_label
from artifactnet.explanation.report.summary import Fact, summarize

HOSTILE = ["$x$", "<img src=x onerror=alert(1)>", "$\\frac{", "a&b'\"", "]]>", "x" * 60]


def facts(count=48, labelled=True, generators=("g0", "g1", "g2")):
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        label = index % 2
        probability = float(np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1))
        generator = generators[index // 2 % len(generators)] if label else "real"
        found.append(
            Fact(
                probability,
                probability >= 0.5,
                label if labelled else None,
                generator,
                predicted=("low-level-texture",),
                regions={"low-level-texture": 1 + index % 2},
                category_pixels={"low-level-texture": (3, 1, 2)} if label and labelled else {},
            )
        )
    return found


def by_name(found):
    charts, left_out = draw_charts(summarize(found, []))
    return {chart.name: chart for chart in charts}, left_out


@pytest.fixture(scope="module")
def all_charts():
    return by_name(facts(generators=HOSTILE))


def texts(chart):
    return [e.text for e in ElementTree.fromstring(chart.svg).iter("text")]


def test_svg_is_fit_for_a_page(all_charts):
    ids = []
    for chart in all_charts[0].values():
        root = ElementTree.fromstring(chart.svg)
        ids += [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
        for element in root.iter():
            assert "style" not in element.attrib
            assert element.tag not in ("style", "metadata", "script", "image", "a")
            for name in ("fill", "stroke"):
                assert element.attrib.get(name) not in ("#000000", "black", "#ffffff", "white")
            assert element.attrib.get("href", "#").startswith("#")
        for forbidden in ("http", "<?xml", "DOCTYPE", "font-family", "Date", "Matplotlib"):
            assert forbidden not in chart.svg
        referred = {e.attrib["href"][1:] for e in root.iter() if "href" in e.attrib}
        assert referred <= set(ids)
        # nothing fills the background, so that the page's shows
        width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
        assert width > height / 2
        image = Image.open(io.BytesIO(chart.png))
        assert "Software" not in image.info
        assert (np.asarray(image.convert("L")) < 100).any()
    assert len(ids) == len(set(ids))


def test_names_are_plain_text(all_charts):
    found = texts(all_charts[0]["generators"])
    for name in HOSTILE[:5]:
        assert short_label(name) in found
    assert "x" * 27 + "…" in found
    assert "<img" not in all_charts[0]["generators"].svg
    assert HOSTILE[5] in all_charts[0]["generators"].description


def test_the_same_bytes_every_time_whatever_the_user_has_set(all_charts):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "text.parse_math": True}):
        again, _ = by_name(facts(generators=HOSTILE))
        assert matplotlib.rcParams["font.size"] == 30
    assert again == all_charts[0]
    assert dict(matplotlib.rcParams) == before


def test_names_that_no_font_or_file_can_hold():
    odd = ["\x00\x1b", "\udcff\ud800", "生成器", "a\nb", "\u202eabc"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        charts, _ = by_name([Fact(0.9, True, 1, name) for name in odd])
    found = texts(charts["generators"])
    assert "生成器" in found
    assert "a\ufffdb" in found
    assert "\ufffd\ufffd" in found
    charts["generators"].svg.encode("utf-8")


def test_every_chart_is_drawn_with_its_numbers(all_charts):
    charts, left_out = all_charts
    assert tuple(charts) == CHART_NAMES
    assert left_out == []
    summary = summarize(facts(generators=HOSTILE), [])
    assert f"{summary['roc']['auc']:.3f}" in charts["roc"].description
    assert f"{summary['calibration']['ece']:.3f}" in charts["calibration"].description
    for row in summary["generators"]:
        text = f"{row['name']}: {row['accuracy']:.3f} of {row['images']}"
        assert text in charts["generators"].description
    assert "IoU 0.500, PixF1 0.667" in charts["categories"].description


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ([], []),
        ([Fact(1.0, True, 1, "g")], ["probabilities", "generators"]),  # one class: no curves
        ([Fact(0.2, False, None, "a")], ["probabilities", "generators"]),
        (facts(labelled=False), ["probabilities", "generators", "categories"]),
    ],
)
def test_charts_without_data_are_named(found, names):
    charts, (sentence,) = by_name(found)
    assert list(charts) == names
    for name in set(CHART_NAMES) - set(names):
        assert name in sentence.lower()


def test_many_generators_are_cut_to_the_largest():
    found = [Fact(0.9, True, 1, f"g{k:03d}") for k in range(100)]
    found += [Fact(0.9, True, 1, "g077"), Fact(0.1, False, 1, "g099")]
    chart = by_name(found)[0]["generators"]
    assert "g077: 1.000 of 2" in chart.description
    assert "g099: 0.500 of 2" in chart.description
    assert str(100 - MAX_ROWS) in chart.description
    shown = [text for text in texts(chart) if text.startswith("g0")]
    assert len(shown) == MAX_ROWS
    assert shown == sorted(shown)
