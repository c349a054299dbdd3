"""The plot holds the reports' numbers on the axes that it names."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from perf import alignment_plot as module
from perf.alignment_forms import FORMS
from perf.alignment_plot import plot_costs, read_report

from artifactnet.types import ArtifactNetError

SETTING = {
    "backbone": "vit_small", "method": "rollout", "device": "cpu", "dtype": "float32",
    "batch_size": 1, "start_layer": 0, "every": 1,
}  # fmt: skip
MACHINE = {"system": "Linux", "processor": "Xeon", "cores": 2, "torch_threads": 2}


def ratio(middle):
    spread = {"median": middle, "min": middle - 0.1, "max": middle + 0.3}
    return {"out_of_memory": False, "ratio": spread}


def peak(size):
    return {"peak_megabytes": size}


TIMES, MEMORY = module._PANELS


@pytest.fixture
def report():
    return {
        "benchmark": "alignment-step",
        "setting": dict(SETTING),
        "machine": dict(MACHINE),
        "floor": "sdpa",
        "forms": {"sdpa": "", "fused": "", "naive": ""},
        "steps": [
            {"tokens": 1370, "forms": {"sdpa": ratio(1), "fused": ratio(1.2), "naive": ratio(2)}},
            {"tokens": 257, "forms": {"sdpa": ratio(1), "fused": ratio(1.1), "naive": ratio(1.3)}},
            {
                "tokens": 5477,
                "forms": {
                    "sdpa": ratio(1), "fused": ratio(1.25), "naive": {"out_of_memory": True},
                },
            },
        ],
        "memory": [
            {"tokens": 257, "forms": {"sdpa": peak(60), "fused": peak(59), "naive": peak(80)}},
            {"tokens": 1370, "forms": {"sdpa": peak(90), "fused": peak(99), "naive": None}},
        ],
        "memory_fit": {},
    }  # fmt: skip


def drawn(panel, series):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    panel.draw(axes, series)
    return axes


def test_files_are_written(report, tmp_path):
    plot_costs([report], tmp_path / "cost.svg")
    plot_costs([report], tmp_path / "cost.PNG")
    svg = (tmp_path / "cost.svg").read_text()
    for text in ("tokens N", "ratio to the step without alignment", "MB at the peak", "1,370"):
        assert text in svg
    assert svg.count(">fused<") == svg.count(">naive<") == 2  # a legend in each panel
    assert ">sdpa<" not in svg
    assert (tmp_path / "cost.PNG").read_bytes().startswith(b"\x89PNG")


def test_same_numbers_give_the_same_file(report, tmp_path):
    for name in ("a.svg", "b.svg"):
        plot_costs([report], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_times_are_ratios_with_their_spread(report):
    series = module._series([report], TIMES)
    assert [(label, form) for label, form, _ in series] == [("fused", "fused"), ("naive", "naive")]
    assert [point[:2] for point in series[0][2]] == [(257, 1.1), (1370, 1.2), (5477, 1.25)]
    assert [point[0] for point in series[1][2]] == [257, 1370]  # it ran out of memory at 5477
    axes = drawn(TIMES, series)
    data, _, (bars,) = axes.containers[0].lines
    assert list(data.get_xdata()) == [257, 1370, 5477]
    assert list(data.get_ydata()) == [1.1, 1.2, 1.25]
    low, high = bars.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((1.0, 1.4))
    assert axes.get_yscale() == "linear"


def test_memory_is_the_peak_of_every_form(report):
    series = module._series([report], MEMORY)
    assert [(label, [p[:2] for p in points]) for label, _, points in series] == [
        ("sdpa", [(257, 60), (1370, 90)]),
        ("fused", [(257, 59), (1370, 99)]),
        ("naive", [(257, 80)]),
    ]
    axes = drawn(MEMORY, series)
    assert axes.get_yscale() == "linear"
    assert [list(line.get_ydata()) for line in axes.lines] == [[60, 90], [59, 99], [80]]
    assert [line.get_label() for line in axes.lines] == ["without alignment", "fused", "naive"]


def test_labels_say_in_what_reports_differ(report):
    other = copy.deepcopy(report)
    other["setting"] |= {"backbone": "vit_base", "batch_size": 8}
    labels = [label for label, _, _ in module._series([report, other], TIMES)]
    assert labels == [
        "fused (vit_small, batch 1)", "naive (vit_small, batch 1)",
        "fused (vit_base, batch 8)", "naive (vit_base, batch 8)",
    ]  # fmt: skip
    series = module._series([report, other], TIMES)
    assert module._markers(series) == ["o", "o", "s", "s"]


def test_reports_of_two_machines_stay_apart(report):
    labels = {}
    for key, value in (
        ("processor", "EPYC"), ("cores", 8), ("torch_threads", 1), ("gpu", "H100"),
    ):  # fmt: skip
        other = copy.deepcopy(report)
        other["machine"][key] = value
        series = module._series([report, other], TIMES)
        labels[key] = [label for label, form, _ in series if form == "fused"]
    assert labels == {
        "processor": ["fused (Xeon)", "fused (EPYC)"],
        "cores": ["fused (2 cores)", "fused (8 cores)"],
        "torch_threads": ["fused (2 threads)", "fused (1 threads)"],
        "gpu": ["fused", "fused (H100)"],  # the first used none
    }
    other = copy.deepcopy(report)
    other["machine"] |= {"system": "Linux of next year"}
    assert len(module._series([report, other], TIMES)) == 2


def test_a_line_through_the_peaks_of_enough_sizes(report, tmp_path):
    for tokens, fused, naive in ((500, 600, 9), (1000, 1100, 7), (2000, 2100, None)):
        forms = {"sdpa": None, "fused": peak(fused), "naive": naive and peak(naive)}
        report["memory"].append({"tokens": tokens, "forms": forms})
    report["memory"][:2] = []
    axes = drawn(MEMORY, module._series([report], MEMORY))
    labels = ["fused", "100 + 1 N, R\u00b2 1.0000", "naive"]  # two sizes make no fit
    assert [line.get_label() for line in axes.lines] == labels
    line = axes.lines[1]
    assert (line.get_linestyle(), line.get_color()) == ("--", module._COLORS["fused"])
    assert list(line.get_xdata()) == [500, 2000]
    assert list(line.get_ydata()) == pytest.approx([600, 2100])
    for row, value in zip(report["memory"], (50, 30, 5), strict=True):
        row["forms"]["fused"] = peak(value)  # it falls, and not on a line
    tokens, values = np.array([500, 1000, 2000]), np.array([50, 30, 5])
    slope, start = np.polyfit(tokens, values, 1)
    left = (
        1 - ((values - start - slope * tokens) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    )
    plot_costs([report], tmp_path / "cost.svg")
    wanted = f">{start:.0f} - {-slope:.3g} N, R\u00b2 {left:.4f}<"
    assert wanted in (tmp_path / "cost.svg").read_text(encoding="utf-8")


def test_a_panel_says_what_it_leaves_out(report, tmp_path):
    plot_costs([report, report], tmp_path / "cost.svg")
    svg = (tmp_path / "cost.svg").read_text()
    # times of the naive form, and its memory
    assert svg.count(">points left out: 2 out of memory<") == 2
    report["steps"].pop()
    report["memory"] = [{"tokens": 9, "forms": {"sdpa": peak(3), "fused": peak(4)}}]
    report["forms"] = {"sdpa": "", "fused": ""}
    plot_costs([report], tmp_path / "all.svg")
    assert "left out" not in (tmp_path / "all.svg").read_text()


def test_reports_of_one_setting_make_one_line(report):
    halves = [copy.deepcopy(report) for _ in range(2)]
    halves[0]["steps"], halves[1]["steps"] = report["steps"][:1], report["steps"][1:]
    assert module._series(halves, TIMES) == module._series([report], TIMES)


@pytest.mark.parametrize(("empty", "left"), [("steps", "MB at the peak"), ("memory", "ratio")])
def test_a_panel_without_numbers_is_left_out(report, empty, left, tmp_path):
    report[empty] = []
    plot_costs([report], tmp_path / "cost.svg")
    svg = (tmp_path / "cost.svg").read_text()
    assert left in svg
    assert svg.count("tokens N") == 1


def test_every_form_has_a_color():
    forms = {form for forms in FORMS.values() for form in forms}
    assert forms == set(module._COLORS)


def test_mistakes(report, tmp_path):
    with pytest.raises(ArtifactNetError, match=r"cost.pdf"):
        plot_costs([report], tmp_path / "cost.pdf")
    with pytest.raises(ArtifactNetError, match="neither times nor memory"):
        plot_costs([{**report, "steps": [], "memory": []}], tmp_path / "cost.svg")
    assert list(tmp_path.iterdir()) == []


def test_reports_are_read(report, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert read_report(path) == report
    for content, message in (
        ("{", "cannot be read as JSON"),
        ("[]", "is not a report"),
        ('{"benchmark": "metrics"}', "is not a report"),
    ):
        path.write_text(content)
        with pytest.raises(ArtifactNetError, match=f"report.json: {message}"):
            read_report(path)
    with pytest.raises(ArtifactNetError, match=r"none.json"):
        read_report(tmp_path / "none.json")
