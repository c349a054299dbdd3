"""FakeXplainer's Table 4: shared stages are trained once, and rows differ in what they say."""

import json

import pytest
from instant_runs import InstantRuns

from artifactnet.cli import main
from artifactnet.config import ConfigError
from artifactnet.experiments import fakexplainer_ablation as ablation
from artifactnet.types import ArtifactNetError

KEYS = ["mllm.base=x", "data.root=y"]


@pytest.fixture
def instant(monkeypatch):
    untrained = []

    def figures(config, _):
        drop, stage = config.mllm.drop, config.mllm.stage
        row = {
            "accuracy": 0.9 if stage == "grpo" else 0.8,
            "iou": None if drop in ("bbox", "label") else 0.3,
            "bleu_2": None if drop in ("caption", "label") else 0.2,
            "rouge_l": None if drop in ("caption", "label") else 0.1,
            "iou_pooled": None,
            "strict": 1.0,
        }
        return {"fakexplainer": {"all": row}}

    def base(config, folder):
        untrained.append(config.name)
        folder.mkdir(parents=True, exist_ok=True)
        found = figures(config, None)
        found["fakexplainer"]["all"]["accuracy"] = 0.5
        (folder / "results.json").write_text(json.dumps(found))
        return found

    monkeypatch.setattr(ablation, "evaluate_untrained", base)
    runs = InstantRuns(monkeypatch, figures)
    runs.untrained = untrained
    return runs


def test_rows_of_table_4(instant, tmp_path, capsys):
    command = ["experiment", "fakexplainer-ablation", *KEYS, "--seeds", "0", "--out", str(tmp_path)]
    assert main(command) == 0
    trained = [(c.name, c.mllm.drop, c.mllm.grpo.grounding) for c in instant.trained]
    assert [name for name, *_ in trained] == [
        "fx_sft_none_s0",
        "fx_grpo_none_linear_s0",
        "fx_grpo_none_1_s0",
        "fx_grpo_none_0.5_s0",
        *(
            f"fx_{stage}_s0"
            for drop in ("bbox", "caption", "tags", "label")
            for stage in (f"sft_{drop}", f"grpo_{drop}_linear")
        ),
    ]
    adapters = {c.name: c.mllm.adapters for c in instant.trained}
    assert adapters["fx_grpo_none_1_s0"] == str(tmp_path / "fx_sft_none_s0")
    assert adapters["fx_grpo_bbox_linear_s0"] == str(tmp_path / "fx_sft_bbox_s0")
    assert adapters["fx_sft_none_s0"] is None
    assert trained[2][2] == "1"
    page = (tmp_path / "fakexplainer-ablation.md").read_text()
    assert "| training | Acc | IoU | BLEU-2 | ROUGE-L | pooled IoU | strict form |" in page
    assert "| No-FT | 0.500 | 0.300 | 0.200 | 0.100 | - | 1.000 |" in page
    assert "| ... without boxes | 0.900 | - | 0.200 | 0.100 | - | 1.000 |" in page
    assert "| ... with the verdict alone | 0.900 | - | - | - | - | 1.000 |" in page
    assert page in capsys.readouterr().out

    (tmp_path / "fx_grpo_tags_linear_s0" / "finished.json").unlink()
    assert main(command) == 0
    assert len(instant.trained) == 13  # the unfinished one alone, again
    assert instant.untrained == ["fx_sft_none_s0"]
    main([*command[:2], *KEYS, "mllm.layout=system", "--seeds", "1", "--out", str(tmp_path)])
    assert instant.untrained == ["fx_sft_none_s0", "fx_sft_none_s1"]


def test_what_the_rows_compare_cannot_be_set(instant, tmp_path):
    for key in ("mllm.grpo.grounding=1", "mllm.adapters=x", "mllm.stage=sft", "seed=3", "out=x"):
        with pytest.raises(ConfigError, match=key.partition("=")[0]):
            ablation.run_fakexplainer_ablation([0], tmp_path, [*KEYS, key])
    assert instant.trained == []


def test_the_base_itself_is_evaluated(tmp_path):
    """The row "No-FT" of a tiny model."""
    tiny_mllm = pytest.importorskip("tiny_mllm")
    pytest.importorskip("transformers", reason="needs the extra mllm")
    from tiny_fakexplainer import FAST, save_images

    from artifactnet.config import load
    from artifactnet.vlm.fakexplainer.evaluate import evaluate_untrained

    base, manifest = tiny_mllm.save_qwen(tmp_path / "base"), save_images(tmp_path)
    keys = [f"mllm.base={base}", f"data.root={manifest}", *FAST, "mllm.max_new_tokens=8"]
    brief = load("paper/fakexplainer_sft", [*keys, "mllm.layout=brief"])
    with pytest.raises(ArtifactNetError, match="mllm.layout=brief: a base that was not trained"):
        evaluate_untrained(brief, tmp_path / "out")
    results = evaluate_untrained(load("paper/fakexplainer_sft", keys), tmp_path / "out")
    assert results["images"] == 4
    assert results["fakexplainer"]["all"]["unparsable"] == 4  # random words
    assert results["fakexplainer"]["all"]["cut_off"] == 4
    assert "not trained" in results["notices"][0]
    assert (tmp_path / "out" / "answers.jsonl").is_file()
