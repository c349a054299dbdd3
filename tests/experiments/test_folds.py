"""Cross-validation: every fold once, figures over all test images."""

import json
import statistics

import pytest
from instant_runs import InstantRuns

from artifactnet.cli import main
from artifactnet.experiments.folds import run_folds
from artifactnet.types import ArtifactNetError

DATA = ["data.name=folder", "data.root=d"]
COUNTS = [(9, 1, 9, 1), (10, 0, 2, 8), (5, 5, 5, 5), (1, 0, 1, 0)]  # tp, fp, tn, fn of each fold


def detector(config, _):
    tp, fp, tn, fn = COUNTS[config.data.fold]
    return {
        "images": tp + fp + tn + fn,
        "authenticity": {"all": dict(zip(("tp", "fp", "tn", "fn"), (tp, fp, tn, fn), strict=True))},
        "heatmap": {"tp": 10 * (config.data.fold + 1), "fp": 10, "fn": 0},
        "masks": None,
        "saliency": {
            "images": 4 + config.data.fold,
            "empty_images": 2,
            **dict.fromkeys(("MSE", "MSE GT=0", "KLD", "CC", "SIM", "AUC-Judd", "NSS")),
            "MSE": 0.1 * config.data.fold,
            "CC": 0.2 * config.data.fold,
        },
    }


def test_every_fold_is_trained_once_and_its_images_are_pooled(monkeypatch, tmp_path, capsys):
    instant = InstantRuns(monkeypatch, detector)
    found = run_folds("swin_aj", tmp_path, [*DATA, "train.epochs=3"])
    assert [(c.name, c.data.folds, c.data.fold, c.train.epochs) for c in instant.trained] == [
        (f"folds_swin_aj_{k}", 4, k, 3) for k in range(4)
    ]
    pooled = found["pooled"]
    tp, fp, tn, fn = (sum(column) for column in zip(*COUNTS, strict=True))
    assert pooled["BA"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert pooled["F1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert pooled["map IoU"] == pytest.approx(100 / 140)
    assert pooled["MSE"] == pytest.approx((5 * 0.1 + 6 * 0.2 + 7 * 0.3) / 22)
    assert pooled["CC"] == pytest.approx((3 * 0.2 + 4 * 0.4 + 5 * 0.6) / 14)  # of marked images
    assert pooled["KLD"] is None
    alone = [row["BA"] for row in found["folds_alone"]]
    assert alone == pytest.approx([0.9, (10 / 18 + 1) / 2, 0.5, 1.0])
    assert found["std"]["BA"] == pytest.approx(statistics.stdev(alone))
    assert found["images"] == sum(map(sum, COUNTS))
    assert json.loads((tmp_path / "folds.json").read_text()) == found
    page = (tmp_path / "folds.md").read_text()
    assert "| fold 0 | 0.9000 |" in page
    (tmp_path / "folds_swin_aj_2" / "finished.json").unlink()
    command = ["experiment", "folds", "swin_aj", *DATA, "train.epochs=3", "--out", str(tmp_path)]
    assert main(command) == 0
    assert [(c.name, c.resume) for c in instant.trained[4:]] == [("folds_swin_aj_2", True)]
    assert page in capsys.readouterr().out


def test_a_second_config_starts_from_the_first_of_the_same_fold(monkeypatch, tmp_path):
    instant = InstantRuns(monkeypatch, detector)
    run_folds("swin_pad", tmp_path, DATA, 2, then="swin_transfer_ft")
    assert [(c.name, c.init_from) for c in instant.trained] == [
        ("folds_swin_pad_0", None),
        ("folds_swin_transfer_ft_0", str(tmp_path / "folds_swin_pad_0")),
        ("folds_swin_pad_1", None),
        ("folds_swin_transfer_ft_1", str(tmp_path / "folds_swin_pad_1")),
    ]
    instant.trained.clear()

    def answered(config, _):
        from artifactnet.vlm.fakexplainer.figures import compute_figures, make_line

        folder = tmp_path / "fx" / config.name
        fold = config.data.fold
        text = "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>"
        lines = [
            make_line(f"{k}", 0, "real", (9, 9), (9, 9), None, None, "none", "json")
            | {
                "answer": text if k >= fold else "",
                "probability": 0.0,
                "cut_off": False,
                "problem": None,
            }
            for k in range(2 + 2 * fold)
        ]
        (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        figures = compute_figures(lines)
        del figures["all"]["reward"]  # as in a run that is older than this figure
        return {"images": len(lines), "fakexplainer": figures}

    instant.figures = answered
    keys = ["mllm.base=x", "data.root=y", "train.devices=2"]  # which it starts by itself
    found = run_folds("paper/fakexplainer_sft", tmp_path / "fx", keys, 2, "paper/fakexplainer_grpo")
    assert [c.mllm.adapters for c in instant.trained] == [
        None,
        str(tmp_path / "fx" / "folds_fakexplainer_sft_0"),
        None,
        str(tmp_path / "fx" / "folds_fakexplainer_sft_1"),
    ]
    assert found["pooled"]["Acc"] == pytest.approx(5 / 6)  # over images, not over folds
    assert [row["Acc"] for row in found["folds_alone"]] == [1, 0.75]
    assert [row["reward"] for row in found["folds_alone"]] == [3, (3 * 3 + 1) / 4]
    assert found["figures"]["all"]["unparsable"] == 1
    assert "| real | 6 | 0.8333 |" in (tmp_path / "fx" / "folds.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folds", "swin_aj", "--folds", "1"], "2 or more"),
        (["folds", "swin_aj", "data.fold=2"], "data.fold cannot be set"),
        (["folds", "swin_aj", *DATA, "--then", "swin_aj"], "have one name"),
        (["fakexplainer-ablation", "mllm.drop=bbox"], "mllm.drop cannot be set"),
    ],
)
def test_bad_input_is_one_line(arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_figures_that_add_up_is_an_error(monkeypatch, tmp_path):
    InstantRuns(monkeypatch, lambda config, _: {"images": 3})
    with pytest.raises(ArtifactNetError, match=r"folds_swin_aj_0.*holds no figure"):
        run_folds("swin_aj", tmp_path, DATA, 2)
