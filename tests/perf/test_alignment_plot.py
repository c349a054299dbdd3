"""The plot holds the reports' numbers on the axes that it names."""

import copy
import json

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
                    "sdpa": ratio(1), "fused": ratio(1.25), "naive": {"out_of_memory": True}
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
    for name in ("cost.svg", "again.svg", "cost.PNG"):
        plot_costs([report], tmp_path / name)
    svg = (tmp_path / "cost.svg").read_text()
    for text in ("tokens N", "ratio to the step without alignment", "MB at the peak", "1,370"):
        assert text in svg
    assert svg.count(">fused<") == svg.count(">naive<") == 2  # a legend in each panel
    assert svg == (tmp_path / "again.svg").read_text()
    assert (tmp_path / "cost.PNG").read_bytes().startswith(b"\x89PNG")
    for empty, left in (("steps", "MB at the peak"), ("memory", "ratio")):
        plot_costs([{**report, empty: []}], tmp_path / "cost.svg")
        svg = (tmp_path / "cost.svg").read_text()
        assert left in svg
        assert svg.count("tokens N") == 1
    with pytest.raises(ArtifactNetError, match=r"cost.pdf"):
        plot_costs([report], tmp_path / "cost.pdf")
    with pytest.raises(ArtifactNetError, match="neither times nor memory"):
        plot_costs([{**report, "steps": [], "memory": []}], tmp_path / "cost.svg")
    assert {form for forms in FORMS.values() for form in forms} == set(module._COLORS)


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
    series = module._series([report, other], TIMES)
    assert [label for label, _, _ in series] == [
        f"{form} ({setting})"
        for setting in ("vit_small, batch 1", "vit_base, batch 8")
        for form in ("fused", "naive")
    ]
    assert module._markers(series) == ["o", "o", "s", "s"]
    halves = [{**report, "steps": part} for part in (report["steps"][:1], report["steps"][1:])]
    assert module._series(halves, TIMES) == module._series([report], TIMES)  # of one setting


@pytest.mark.parametrize(
    ("key", "value", "labels"),
    [
        ("processor", "EPYC", ["fused (Xeon)", "fused (EPYC)"]),
        ("cores", 8, ["fused (2 cores)", "fused (8 cores)"]),
        ("torch_threads", 1, ["fused (2 threads)", "fused (1 threads)"]),
        ("gpu", "H100", ["fused", "fused (H100)"]),  # the first used none
        ("system", "Linux of next year", ["fused"]),
    ],
)
def test_reports_of_two_machines_stay_apart(report, key, value, labels):
    other = {**report, "machine": {**report["machine"], key: value}}
    series = module._series([report, other], TIMES)
    assert [label for label, form, _ in series if form == "fused"] == labels


def test_a_line_through_the_peaks_of_enough_sizes(report):
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


def test_a_panel_counts_what_it_leaves_out(report, tmp_path):
    plot_costs([report, report], tmp_path / "cost.svg")
    svg = (tmp_path / "cost.svg").read_text()
    # times of the naive form, and its memory
    assert svg.count(">points left out: 2 out of memory<") == 2


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
