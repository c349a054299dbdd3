"""Q-Real's Table 4: what each strategy starts from, and figures from the answers of its run."""

import json
from pathlib import Path

import pytest
import tiny_qreal
from instant_runs import InstantRuns

from artifactnet.cli import main
from artifactnet.config import ConfigError
from artifactnet.experiments import qreal_strategies
from artifactnet.experiments.qreal_strategies import run_qreal_strategies
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.qreal.rows import STAGES

# both entities of b.png have problems; the prediction of the first is exact, of the second far off
BOXES = [
    {"bbox": [0, 0, 10, 5], "label": "violin", "description": "odd"},
    {"bbox": [60, 60, 70, 70], "label": "cello", "description": "odd"},
]


@pytest.fixture
def truth(tmp_path):
    return tiny_qreal.save(tmp_path)


@pytest.fixture
def keys(truth):
    return ["mllm.base=x", f"data.root={truth}"]


@pytest.fixture
def instant(monkeypatch):
    def chain(truth, models, out, **more):
        """Finds what strategy 3 finds; its models are not loaded here."""
        instant.chained.append((sorted(models), Path(out), more["split"]))
        write_answers(Path(out), BOXES[:1])
        return {"figures": {"warnings": ["all say this", "the chain says"]}}

    def figures(config, _):
        """Strategy 3 finds one of the entities in b.png, strategy 2 adds a box that is wrong."""
        boxes = BOXES if config.mllm.adapters else BOXES[:1]
        folder = Path(config.out) / config.name
        write_answers(folder / "benchmark", boxes)
        (folder / "adapters.safetensors").write_text(config.name)
        learned = {"warnings": ["the training images"]}
        (folder / "data.json").write_text(json.dumps(learned))
        warnings = ["all say this", *(["only I do"] if config.mllm.adapters else [])]
        return {
            "data": {"root": config.data.root, "split": "test"},
            "benchmark": {"figures": {"warnings": warnings}},
        }

    monkeypatch.setattr(qreal_strategies, "run_chain", chain)
    instant = InstantRuns(monkeypatch, figures)
    instant.chained = []
    return instant


def write_answers(folder, boxes):
    folder.mkdir(exist_ok=True, parents=True)  # of a resumed run
    lines = [
        {"image": f"{name}.png", "dimension": dimension, "boxes": boxes if name == "b" else []}
        for name in "bcd"
        for dimension in ("realism", "plausibility")
    ]
    (folder / "image.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_rows_of_table_4(instant, keys, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["experiment", "qreal-strategies", *keys, "--seeds", "0", "1", "--out", str(out)]
    assert main(command) == 0
    assert [(c.name, c.mllm.task, c.mllm.adapters, c.seed) for c in instant.trained] == [
        row
        for seed in (0, 1)
        for row in (
            *((f"qreal_{s}_s{seed}", f"qreal_{s}", None, seed) for s in STAGES),
            (f"qreal_objectqa_s{seed}", "qreal_object", None, seed),
            (f"qreal_imageqa_2_s{seed}", "qreal_image", str(out / f"qreal_objectqa_s{seed}"), seed),
            (f"qreal_imageqa_3_s{seed}", "qreal_image", None, seed),
        )
    ]
    page = (out / "qreal-strategies.md").read_text()
    header = "IoU | detection rate | AUC | LLM-Score | LLM-Score, all | recall | none | boxes |"
    assert f"| training | {header}" in page
    # realism has two true boxes; plausibility has that of c.png, too
    cells = ["0.500", "0.500", "0.500", "-", "-", "0.500", "0.667", "0.667"]
    assert _line(page, "2: ObjectQA, then ImageQA (realism)") == cells
    cells = ["1.000", "1.000", "1.000", "-", "-", "0.500", "0.667", "0.333"]
    assert _line(page, "3 (*): ImageQA from the base (realism)") == cells
    assert _line(page, "3 (*): ImageQA from the base (plausibility)")[5] == "0.333"
    assert "| 1.000 ± 0.000 |" in page
    cells = ["1.000", "1.000", "1.000", "-", "-", "0.500", "0.667", "0.333"]
    assert _line(page, "1: detection, filtering, description (realism)") == cells
    assert "WARNING: the chain says (qreal_chain_s0, qreal_chain_s1)\n" in page
    chains = [(sorted(STAGES), out / f"qreal_chain_s{seed}" / "benchmark") for seed in (0, 1)]
    assert instant.chained == [(*chain, "test") for chain in chains]
    assert "WARNING: all say this\n" in page
    assert f"WARNING: {tmp_path / 'qreal.jsonl'}: the training images\n" in page
    assert "WARNING: only I do (qreal_imageqa_2_s0, qreal_imageqa_2_s1)\n" in page
    assert page in capsys.readouterr().out

    (out / "qreal_objectqa_s1" / "finished.json").unlink()
    assert main(command) == 0
    assert [c.name for c in instant.trained[12:]] == ["qreal_objectqa_s1"]
    assert instant.trained[12].resume
    assert len(instant.chained) == 2

    # other weights, or other images, are asked anew
    (out / "qreal_filter_s1" / "adapters.safetensors").write_text("other")
    assert main(command) == 0
    assert len(instant.chained) == 3


def _line(page, title):
    """Cells of the first line with a title, without deviations."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {title} |"))
    return [cell.split("±")[0].strip() for cell in line.split("|")[2:-1]]


def test_annotations_that_nobody_verified_are_marked(instant, tmp_path):
    truth = tiny_qreal.save(tmp_path, {}, {"verified": False})
    found = run_qreal_strategies([0], tmp_path / "out", ["mllm.base=x", f"data.root={truth}"])
    (note,) = (note for note in found["notes"] if "verified" in note)
    assert note == (
        "WARNING: 1 of 3 images were annotated by models alone: no person has verified them"
    )


def test_the_judge_is_asked_nothing_twice(instant, keys, tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import polite, serving

    monkeypatch.setenv("OPENAI_API_KEY", "key")
    out = tmp_path / "out"
    with serving(polite) as server:
        judge = ["--judge-url", server.url, "--judge-model", "big"]
        command = ["experiment", "qreal-strategies", *keys, *judge, "--seeds", "0"]
        assert main([*command, "--out", str(out)]) == 0
        asked = len(server.requests)
        assert asked == 6  # a pair that overlaps for each strategy and dimension
        assert main([*command, "--out", str(out)]) == 0
        assert len(server.requests) == asked
    page = (out / "qreal-strategies.md").read_text()
    assert _line(page, "3 (*): ImageQA from the base (realism)")[3:5] == ["0.800", "0.400"]
    assert json.loads((out / "qreal-strategies.json").read_text())["judge"] == "big"


def test_runs_on_other_annotations_are_refused(instant, keys, tmp_path):
    """A run that goes on may find its data elsewhere; a table is of one file of annotations."""
    run_qreal_strategies([0], tmp_path / "out", keys)
    (tmp_path / "other").mkdir()
    root = f"data.root={tiny_qreal.save(tmp_path / 'other')}"
    with pytest.raises(ArtifactNetError, match=r"qreal_detect_s0 was trained with data\.root="):
        run_qreal_strategies([0], tmp_path / "out", ["mllm.base=x", root])
    assert len(instant.trained) == 6


def test_what_cannot_be_asked_for(instant, keys, tmp_path, capsys):
    for key in ("mllm.task=qreal_image", "mllm.adapters=x", "seed=3", "out=x"):
        with pytest.raises(ConfigError, match=f"{key.partition('=')[0]} cannot be set"):
            run_qreal_strategies([0], tmp_path, [*keys, key])
    assert main(["experiment", "qreal-strategies", *keys, "--judge-url", "http://x/v1"]) == 2
    assert "come together" in capsys.readouterr().err
    assert instant.trained == []
