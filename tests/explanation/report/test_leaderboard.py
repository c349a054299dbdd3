"""Several models on one page: figures against loops, what is left out, hostile names, a browser."""

import json
import math
from fractions import Fraction
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from browser_checks import BARE, CONTRAST
from PIL import Image
from report_samples import HOSTILE, SHOWN

from artifactnet.cli import main
from artifactnet.explanation.report import leaderboard_charts
from artifactnet.explanation.report.leaderboard import (
    Answer,
    BoardImage,
    Condition,
    write_leaderboard,
)
from artifactnet.explanation.report.leaderboard_tables import percent
from artifactnet.explanation.report.tables import NOTHING
from artifactnet.metrics.authenticity import auc
from artifactnet.types import ArtifactNetError

TRUTH = {"p0": 0, "p1": 0, "p2": 0, "a0": 1, "a1": 1, "b0": 1}
GENERATORS = {"a0": "flux", "a1": "flux", "b0": "sd3"}
# ties between a fake and real images, and among real images
SOFT = {"p0": 0.1, "p1": 0.4, "p2": 0.4, "a0": 0.4, "a1": 0.9, "b0": 0.2}
SURE = {"p0": 0.0, "p1": 0.2, "p2": 0.7, "a0": 0.95, "a1": 0.8, "b0": 0.9}
HARD = {"p0": False, "p1": True, "p2": False, "a0": True, "a1": True, "b0": False}


def soft(chances):
    return {key: Answer(chance >= 0.5, chance) for key, chance in chances.items()}


def hard(verdicts):
    return {key: Answer(fake) for key, fake in verdicts.items()}


def images(load=None):
    return [BoardImage(key, label, GENERATORS.get(key), load) for key, label in TRUTH.items()]


def condition(name="clean", **answers):
    answers = answers or {"soft": soft(SOFT), "sure": soft(SURE), "hard": hard(HARD)}
    return Condition(name, images(), answers)


def brute_force_auc(chances, fakes):
    pairs = [(chances[f], chances[r]) for f in fakes for r in ("p0", "p1", "p2")]
    return Fraction(sum(2 * (f > r) + (f == r) for f, r in pairs), 2 * len(pairs))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("board") / "board.html"
    return write_leaderboard(path, [condition()])


def test_figures_are_those_of_loops_over_the_images(written):
    (found,) = written.figures["conditions"]
    assert (found["images"], found["real"], found["fake"]) == (6, 3, 3)
    assert list(found["models"]) == written.figures["models"] == ["sure", "soft", "hard"]
    one = found["models"]["soft"]
    assert one["auc"] == float(brute_force_auc(SOFT, ["a0", "a1", "b0"]))
    assert (one["real_accuracy"], one["fake_accuracy"]) == (1.0, pytest.approx(1 / 3))
    assert found["models"]["sure"]["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    hard_one = found["models"]["hard"]
    assert hard_one["auc"] is None
    assert (hard_one["real_accuracy"], hard_one["fake_accuracy"]) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )
    rows = {row["name"]: row for row in one["generators"]}
    assert list(rows) == ["real", "flux", "sd3"]
    assert [rows[name]["accuracy"] for name in rows] == [1.0, 0.5, 0.0]
    assert rows["flux"]["auc"] == float(brute_force_auc(SOFT, ["a0", "a1"]))
    assert rows["sd3"]["auc"] == float(brute_force_auc(SOFT, ["b0"]))
    assert rows["real"]["auc"] is None


def test_intervals_are_wilsons(written):
    def ends(wins, total):  # solutions of (p - w)^2 = z^2 p (1 - p) / n
        z2, share = 1.959963984540054**2, wins / total
        middle = (share + z2 / (2 * total)) / (1 + z2 / total)
        reach = math.sqrt(z2) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
        return middle - reach / (1 + z2 / total), middle + reach / (1 + z2 / total)

    one = written.figures["conditions"][0]["models"]["hard"]
    assert one["real_interval"] == pytest.approx(ends(2, 3))
    assert written.figures["conditions"][0]["models"]["soft"]["real_interval"][1] == 1.0


def test_the_drawn_curve_has_the_area_of_the_metric(monkeypatch, tmp_path):
    """Tied images are one step, so that no order among them is made up."""
    drawn = {}
    real = leaderboard_charts.draw_chart

    def record(name, plan, png):
        if name.startswith("roc"):
            from matplotlib.figure import Figure

            axes = Figure().subplots()
            plan.draw(axes)
            drawn.update({line.get_label(): line.get_xydata() for line in axes.get_lines()})
        return real(name, plan, png=png)

    monkeypatch.setattr(leaderboard_charts, "draw_chart", record)
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    chances = np.clip(np.round(rng.normal(0.4 + 0.2 * labels, 0.2), 1), 0, 1)  # many ties
    board = [BoardImage(str(k), int(label)) for k, label in enumerate(labels)]
    answers = {str(k): Answer(bool(c >= 0.5), float(c)) for k, c in enumerate(chances)}
    verdicts = {key: Answer(answer.is_fake) for key, answer in answers.items()}
    models = {"m": answers, "_v": verdicts}
    write_leaderboard(tmp_path / "x.html", [Condition("c", board, models)])
    exact = auc(torch.tensor(labels), torch.tensor(chances))
    curve = drawn[f"{exact:.3f}  m"]
    assert len(curve) == len(np.unique(chances)) + 1
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    assert area == pytest.approx(exact, abs=1e-12)
    called = chances >= 0.5
    here = [called[labels == 0].mean(), called[labels == 1].mean()]
    assert drawn["verdicts  _v"].tolist() == [pytest.approx(here)]  # a point, no curve


def test_images_that_not_all_answered_count_for_none(tmp_path):
    partial = {key: answer for key, answer in soft(SURE).items() if key != "a0"}
    one = condition(all=soft(SOFT), some=partial)
    found = write_leaderboard(tmp_path / "x.html", [one])
    models = found.figures["conditions"][0]["models"]
    assert [models[name]["fake"] for name in ("all", "some")] == [2, 2]
    assert models["all"]["auc"] == float(brute_force_auc(SOFT, ["a1", "b0"]))
    assert found.notices == (
        "clean: 1 of 6 images count for no model, since not all answered them (some lacks 1).",
    )
    assert found.notices[0] in found.html.read_text()


def test_probabilities_of_some_images_alone_make_no_curve(tmp_path):
    mixed = soft(SOFT) | {"p0": Answer(False)}
    found = write_leaderboard(tmp_path / "x.html", [condition(mixed=mixed)])
    assert found.figures["conditions"][0]["models"]["mixed"]["auc"] is None
    assert "mixed has a probability for 5 of 6 images only" in found.notices[0]


def test_conditions_and_models_that_lack_one(tmp_path):
    first = condition("clean", soft=soft(SOFT), hard=hard(HARD))
    second = condition("jpeg", soft=soft(SURE), hard=hard(HARD), new=soft(SURE))
    found = write_leaderboard(tmp_path / "x.html", [first, second])
    # soft: (2/3 + 5/6) / 2, hard: 2/3 twice; new is better, but was not everywhere
    assert found.figures["models"] == ["soft", "hard", "new"]
    assert json.loads(found.json.read_text())["conditions"] == found.figures["conditions"]
    page = found.html.read_text()
    assert "1 of 2" in page
    assert page.count('<details class="condition" open>') == 1
    assert page.count('<details class="condition">') == 1


def test_images_on_which_models_differ_most_come_first(tmp_path):
    loaded = []

    def load(key):
        def read():
            loaded.append(key)
            if key == "p2":
                raise ArtifactNetError("p2: broken")
            return np.full((20, 10, 3), 200, np.uint8)

        return read

    board = [BoardImage(i.key, i.label, i.generator, load(i.key)) for i in images()]
    answers = {"soft": soft(SOFT), "sure": soft(SURE)}
    # spreads .1 .2 .3 .55 .1 .7
    found = write_leaderboard(
        tmp_path / "x.html", [Condition("c", board, answers)], disagreements=3
    )
    assert loaded == ["b0", "a0", "p2"]
    assert found.notices == ("c: no picture of p2: p2: broken",)
    assert found.html.read_text().count("data:image/webp") == 2
    # without probabilities, by the verdicts; where all agree, none is shown
    write_leaderboard(tmp_path / "y.html", [condition(a=hard(HARD), b=hard(HARD))])
    assert "same answer to every image" in (tmp_path / "y.html").read_text()
    other = HARD | {"p0": True}
    write_leaderboard(tmp_path / "z.html", [condition(a=hard(HARD), b=hard(other))])
    page = (tmp_path / "z.html").read_text()
    assert page.count("Truth: ") == 1
    assert page.count(">p0</bdi>") == 1


def test_one_class_alone_has_no_curve(tmp_path):
    board = [BoardImage("a", 1, "flux"), BoardImage("b", 1)]
    answers = {"m": {"a": Answer(True, 0.9), "b": Answer(False, 0.2)}}
    found = write_leaderboard(tmp_path / "x.html", [Condition("c", board, answers)])
    one = found.figures["conditions"][0]["models"]["m"]
    assert (one["auc"], one["balanced_accuracy"], one["real_interval"]) == (None, 0.5, None)
    assert [row["name"] for row in one["generators"]] == ["flux", "unknown"]
    page = found.html.read_text()
    assert "ROC curves" not in page
    assert "only fake images" in page


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([], "needs one condition"),
        ([condition(), condition()], "2 conditions are called 'clean'"),
        ([Condition("c", [], {"m": {}})], "c: a condition needs an image and a model"),
        ([Condition("c", images(), {})], "c: a condition needs an image and a model"),
        ([Condition("c", [*images(), BoardImage("p0", 0)], {"m": {}})], "2 images of c are called"),
        ([condition(m={})], "clean: no image was answered by all"),
        ([condition(m={"x": Answer(True)})], "m answers about 'x', which is no image"),
        ([condition(m={"p0": Answer(True, 1.5)})], "m gives 'p0' the probability 1.5"),
        ([condition(m={"p0": Answer(True, math.nan)})], "m gives 'p0' the probability nan"),
    ],
)
def test_unusable_input_is_refused(tmp_path, conditions, message):
    with pytest.raises(ArtifactNetError, match=message):
        write_leaderboard(tmp_path / "x.html", conditions)
    assert list(tmp_path.iterdir()) == []


def test_a_page_needs_its_ending(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"a name that ends in \.html"):
        write_leaderboard(tmp_path / "x.json", [condition()])


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, NOTHING), (0.0, "0.0 %"), (1e-5, "< 0.1 %"), (0.99999, "> 99.9 %"), (1.0, "100.0 %")],
)
def test_no_share_is_rounded_to_certainty(share, text):
    assert percent(share) == text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page whose names of models, conditions, images and generators are hostile."""

    def load():
        return np.full((30, 40, 3), 120, np.uint8)

    rng = np.random.default_rng(0)
    board = [
        BoardImage(f"{name}{k}", k % 2, name if k % 2 else None, load)
        for k, name in enumerate(HOSTILE * 2)
    ]
    answers = {
        name: {i.key: Answer(bool(rng.random() < 0.5), float(rng.random())) for i in board}
        for name in HOSTILE
    }
    conditions = [Condition(name, board, answers) for name in HOSTILE[:2]]
    path = tmp_path_factory.mktemp("hostile") / "board.html"
    write_leaderboard(path, conditions, title=HOSTILE[1], warnings=[HOSTILE[0]], disagreements=4)
    return path


def test_names_never_become_markup(hostile):
    page = hostile.read_text(encoding="utf-8")
    for text in ("<img src=x", "<script>alert", "<!--<script>", "\u2028", "\u202e"):
        assert text not in page
    assert page.count("<script") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(hostile, visit, scheme):
    page = visit(hostile, color_scheme=scheme)
    texts = page.locator("body").inner_text()
    assert SHOWN[0] in texts
    assert page.evaluate(BARE) == []
    assert min(page.evaluate(CONTRAST))[0] >= 4.5
    # folded conditions open by the keyboard, and every table can be scrolled by it
    second = page.locator("details.condition").nth(1)
    assert second.get_attribute("open") is None
    second.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert second.get_attribute("open") is not None
    assert page.locator(".scroll:not([tabindex='0'])").count() == 0
    # pictures are whole
    sizes = page.locator(".cards img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert sizes == [40] * 8
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "light"


def test_fits_a_phone(hostile, visit):
    page = visit(hostile, width=360, height=700)
    for details in page.locator("details.condition").all():
        details.evaluate("node => node.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_ids_of_drawings_do_not_clash(hostile):
    page = hostile.read_text(encoding="utf-8")
    svgs = [part.split("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
    ids = [e.get("id") for s in svgs for e in ElementTree.fromstring("<svg" + s).iter()]
    ids = [one for one in ids if one]
    assert len(svgs) == 4
    assert len(ids) == len(set(ids))


def test_models_can_be_told_from_a_light_and_a_dark_page():
    def luminance(color):
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for color in leaderboard_charts.COLORS:
        assert 1.05 / (luminance(color) + 0.05) >= 3  # WCAG's least for graphics
        assert (luminance(color) + 0.05) / (luminance("#16181a") + 0.05) >= 3


# ---- files ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """real/ and fake/flux/, and predictions of two models with paths as they were typed."""
    monkeypatch.chdir(tmp_path)
    paths = [f"data/real/{k}.png" for k in range(3)] + [f"data/fake/flux/{k}.png" for k in range(3)]
    rng = np.random.default_rng(1)
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(path)
    values = [0.2, 0.7, 0.1, 0.9, 0.6, 0.3]
    lines = [
        {"path": path, "probability": chance, "is_fake": chance >= 0.5, "heatmap": None}
        for path, chance in zip(paths, values, strict=True)
    ]
    write_lines(tmp_path / "a.jsonl", lines)
    write_lines(tmp_path / "b.jsonl", [{"path": x["path"], "is_fake": True} for x in lines])
    return tmp_path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_command_on_a_folder(folder, capsys):
    command = ["leaderboard", "a=a.jsonl", "all=b.jsonl", "--labels", "data", "--out", "x.html"]
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "a: balanced accuracy 0.6667, AUC 0.7778",
        "all: balanced accuracy 0.5000",
        "x.html",
    ]
    page = (folder / "x.html").read_text()
    assert ">flux/fake/flux/2</bdi>" in page
    assert str(folder) not in page  # a page may leave the machine
    assert json.loads((folder / "x.json").read_text())["title"] == "Leaderboard on data"


def test_command_on_a_manifest(folder, capsys):
    rows = [
        {"image": f"data/{place}/{k}.png", "uid": f"{place}{k}", "label": label} | more
        for place, label, more in (
            ("real", 0, {"annotation": "clean"}),
            ("fake/flux", 1, {"annotation": "none", "generator": "flux.1"}),
        )
        for k in range(3)
    ]
    write_lines(folder / "m.jsonl", rows)
    options = ["--labels", "m.jsonl", "--out", "x.html", "--title", "Mine", "--disagreements", "0"]
    assert main(["leaderboard", "a=a.jsonl", *options]) == 0
    assert "AUC 0.7778" in capsys.readouterr().out
    page = (folder / "x.html").read_text()
    assert "<title>Mine</title>" in page
    assert "flux.1" in page
    assert "data:image/webp" not in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "p.jsonl:1"),
        ("[]", "p.jsonl:1: needs a 'path'"),
        (
            '{"path": "data/x.png", "is_fake": true}',
            "p.jsonl:1: data has no label for 'data/x.png'",
        ),
        ('{"path": "data/real/0.png"}', "p.jsonl:1: 'is_fake' must be true or false, not None"),
        (
            '{"path": "data/real/0.png", "is_fake": true, "probability": NaN}',
            "p.jsonl:1",
        ),
        (
            '{"path": "data/real/0.png", "is_fake": true, "probability": true}',
            "p.jsonl:1: 'probability' must be in [0, 1] or null, not True",
        ),
        (
            '{"path": "data/real/0.png", "is_fake": true}\n{"path": "data/real/../real/0.png", '
            '"is_fake": true}',
            "p.jsonl:2: 'data/real/../real/0.png' is answered twice",
        ),
        ("\n", "p.jsonl: has no prediction"),
    ],
)
def test_bad_lines_are_named(folder, capsys, text, message):
    (folder / "p.jsonl").write_text(text)
    assert main(["leaderboard", "p=p.jsonl", "--labels", "data", "--out", "x.html"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a.jsonl"], "give a name and a file"), (["a=a.jsonl", "a=b.jsonl"], "a is given twice")],
)
def test_bad_names_are_refused(folder, capsys, names, message):
    assert main(["leaderboard", *names, "--labels", "data", "--out", "x.html"]) == 2
    assert message in capsys.readouterr().err
