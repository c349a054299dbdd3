"""Figures of a trained HEIE against ones counted by hand; where they are written."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chat_server import Reply, serving
from tiny_heie_run import TEXT, config, line, manifest

from artifactnet.cli import main
from artifactnet.data.manifest_format import write_manifest
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie import data as heie_data
from artifactnet.vlm.heie import evaluate
from artifactnet.vlm.heie.data import SHORT_QUESTIONS, TextData
from artifactnet.vlm.heie.evaluate import evaluate_heie, evaluate_model, open_config, subfolder
from artifactnet.vlm.heie.predictor import HeiePredictor
from artifactnet.vlm.heie.saving import load_heie
from artifactnet.vlm.heie.trainer import train_heie


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def trained(folder, tiny_base):
    return train_heie(config(folder, tiny_base, "train.max_steps=1"))


def examples_of(run_dir, model, *overrides):
    data = TextData(open_config(run_dir, overrides)[1], model.processing)
    return [one for batch in data.example_loader("test") for one in batch]


def test_figures_by_hand(trained):
    found = evaluate_heie(trained.run_dir, text="given")
    model = load_heie(trained.run_dir)
    predictor = HeiePredictor(model)
    errors, scores, correlations, nll, tokens = [], [], [], 0.0, 0
    for example in examples_of(trained.run_dir, model):
        answer = predictor.predict_from_texts([example.image], [example.text])[0]
        truth = example.target.numpy().astype(np.float64)
        map_ = answer.heatmap.astype(np.float64)
        assert map_.shape == truth.shape == example.image.shape[:2]
        errors.append(((map_ - truth) ** 2).mean())
        correlations.append(np.corrcoef(map_.ravel(), truth.ravel())[0, 1])
        scores.append((answer.score, example.score))
        inputs = model.processing.encode([example.image], [example.text])
        with torch.no_grad():
            output = model(inputs)
        nll, tokens = nll + float(output.nll), tokens + int(output.tokens)
    assert found["saliency"]["MSE"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert found["saliency"]["CC"] == pytest.approx(np.mean(correlations), rel=1e-3)
    wanted = np.corrcoef(np.array(scores).T)[0, 1]
    assert found["scores"]["PLCC"] == pytest.approx(wanted, rel=1e-3)
    assert found["explanations"]["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert found["explanations"]["tokens"] == tokens
    assert found["explanations"]["BLEU"] is None  # nothing was generated
    assert found["text"] == "given"


def test_short_answers_are_judged_by_the_question_that_asks_for_them(trained, tmp_path):
    run = shutil.copytree(trained.run_dir, tmp_path / "run")
    found = evaluate_heie(run, ["mllm.text=short"], "template")
    model = load_heie(run)
    nll, tokens = 0.0, 0
    for example in examples_of(run, model, "mllm.text=short"):
        text = example.text
        assert text.startswith("artificial, ")
        inputs = model.processing.encode([example.image], [text], [SHORT_QUESTIONS[0]])
        with torch.no_grad():
            output = model(inputs)
        nll, tokens = nll + float(output.nll), tokens + int(output.tokens)
    assert found["explanations"]["tokens"] == tokens
    assert found["explanations"]["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)


def test_short_answers_are_compared_with_the_annotation(trained, tmp_path, monkeypatch):
    run = shutil.copytree(trained.run_dir, tmp_path / "run")
    truth = [e.text for e in examples_of(run, load_heie(run), "mllm.text=short")]
    assert all(text.startswith("artificial, ") for text in truth)
    said = [truth[0], "clean [MAP][SCORE]", "no such form"]
    asked = []

    def generate(model, images, questions):
        asked.extend(questions)
        return [said.pop(0) for _ in images]

    monkeypatch.setattr(evaluate, "generate_texts", generate)
    found = evaluate_heie(run, ["mllm.text=short"], "generate")
    assert asked == [SHORT_QUESTIONS[0]] * 3
    facts = found["explanations"]["facts"]
    shares = {name: facts[name] for name in ("repainted", "place", "missed", "strict form")}
    third = pytest.approx(1 / 3)
    assert shares == {
        "repainted": third, "place": third, "missed": third, "strict form": pytest.approx(2 / 3)
    }  # fmt: skip
    assert found["saliency"] is None
    assert found["explanations"]["BLEU"] is None
    (folder,) = (run / "evaluations").glob("*-generate-*")
    page = (folder / "results.md").read_text()
    assert "It gave short answers." in page
    assert "Repainted: artificial, of 3 images with regions of no category." in page
    assert "--text template" in found["data_warnings"][-1]  # this model has learned heatmaps
    assert "| 33.3 % |" in page
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [answer["text"] for answer in answers][1:] == ["clean [MAP][SCORE]", "no such form"]


def test_truth_of_short_answers_is_the_mask(trained, tmp_path, monkeypatch):
    # the largest region first, and every place that holds a quarter of it or more
    mask = np.zeros((56, 56), np.uint8)
    mask[0:18, 10:28] = 0b1000  # symbols, 18 x 9 pixels top left, as many top middle
    mask[50:56, 50:56] |= 0b10  # a small texture
    run = shutil.copytree(trained.run_dir, tmp_path / "run")
    said = ["symbols, top middle [MAP][SCORE]", "texture, bottom right [MAP][SCORE]", "clean"]
    marked = [mask, mask, np.zeros_like(mask)]
    monkeypatch.setattr(heie_data, "marked_categories", lambda _sample: marked.pop(0))
    monkeypatch.setattr(evaluate, "generate_texts", lambda *_a: [said.pop(0)])
    facts = evaluate_heie(run, ["mllm.text=short", "data.eval_batch_size=1"], "generate")[
        "explanations"
    ]["facts"]
    names = ("categorized", "category", "place", "untouched", "called clean", "strict form")
    assert [facts[name] for name in names] == [2, 0.5, 0.5, 1, 1.0, pytest.approx(2 / 3)]


def test_own_results_are_replaced_and_others_kept_apart(trained):
    page = trained.run_dir / "results.json"
    before = json.loads(page.read_text())
    found = evaluate_heie(trained.run_dir)
    assert found.keys() == before.keys()
    assert found["training"] == before["training"]
    for name in ("MSE", "KLD", "CC", "NSS"):
        assert found["saliency"][name] == pytest.approx(before["saliency"][name], rel=1e-4)
    for name in ("perplexity", "BLEU", "ROUGE-L", "tokens", "texts", "mended"):
        assert found["explanations"][name] == pytest.approx(before["explanations"][name], rel=1e-4)
    fast = evaluate_heie(trained.run_dir, text="template")
    assert json.loads(page.read_text()) == found
    (other,) = (trained.run_dir / "evaluations").glob("manifest-set.jsonl-template-*")
    assert json.loads((other / "results.json").read_text()) == fast
    assert fast["saliency"]["MSE"] != found["saliency"]["MSE"]
    assert "a fixed text" in (other / "results.md").read_text()


def test_answers_are_kept(trained):
    evaluate_heie(trained.run_dir)
    lines = (trained.run_dir / "answers.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["annotated_text"] for answer in answers] == [
        TEXT.format(k=k) for k in (10, 11, 12)
    ]
    for answer in answers:
        assert 0 <= answer["score"] <= 1
        assert "[MAP]" in answer["text"]
        assert answer["notes"]  # eight tokens of a random model had to be mended
    found = json.loads((trained.run_dir / "results.json").read_text())
    assert found["explanations"]["mended"] == 3


def test_other_data(trained, tmp_path):
    root = manifest(tmp_path / "other", seed=5, texts=False)
    found = evaluate_heie(trained.run_dir, [f"data.root={root}"], "template")
    assert found["data"]["root"] == str(root)
    assert found["images"] == 3
    # nobody wrote these: the reference is made of the annotation
    assert "mllm.text=written" in found["data_warnings"][-1]
    with pytest.raises(ArtifactNetError, match=r"optim\.lr cannot be changed"):
        evaluate_heie(trained.run_dir, ["optim.lr=1"])
    own = [f"data.root={manifest(tmp_path / 'texts', seed=6)}"]
    found = evaluate_heie(trained.run_dir, own, "template")
    assert not [text for text in found["data_warnings"] if "written text" in text]
    bad = line(tmp_path / "texts", 1, "test", "### No chain of thought", seed=6)
    write_manifest(tmp_path / "texts" / "set.jsonl", [bad])
    with pytest.raises(ArtifactNetError, match=r"6_1\.png: its text"):
        evaluate_heie(trained.run_dir, own, "template")


def test_a_bias_changes_what_is_written(trained):
    bias = 'mllm.sequence_bias={"QZ": 3000, "Q": 2000}'
    found = evaluate_heie(trained.run_dir, [bias])
    assert found["generation"]["sequence_bias"] == {"QZ": 3000.0, "Q": 2000.0}
    (page,) = (
        path
        for path in (trained.run_dir / "evaluations").glob("*-generate-*/results.md")
        if "QZ" in path.read_text()
    )
    answers = [json.loads(text) for text in (page.parent / "answers.jsonl").open()]
    assert all("QZQZ" in answer["text"] for answer in answers)
    own, _ = open_config(trained.run_dir)
    config = open_config(trained.run_dir, [bias])[1]
    plain = subfolder(own, open_config(trained.run_dir)[1], "template")
    assert subfolder(own, config, "template") == plain  # nothing is written


def test_only_what_decides_the_figures_decides_the_folder(trained):
    own, _ = open_config(trained.run_dir)
    for same in (["data.workers=1"], ["data.eval_batch_size=7"], ["train.device=cpu"]):
        assert str(subfolder(own, open_config(trained.run_dir, same)[1], "generate")) == "."
    places = [
        subfolder(own, open_config(trained.run_dir, [other])[1], "generate")
        for other in (
            *("mllm.question=Why?", "data.limit=2", "mllm.max_new_tokens=9"),
            'mllm.sequence_bias={" Identification\\nNo": 2.5}',
        )
    ]
    assert len({str(place) for place in places}) == 4
    assert {place.parts[0] for place in places} == {"evaluations"}


def test_a_judge_is_asked_only_if_there_is_one(trained, monkeypatch):
    asked = []

    def judge(pairs, chat, cache):
        asked.append((list(pairs), chat.model, cache))
        return SimpleNamespace(mean=0.25, failed=1, problems={2: "no number"})

    monkeypatch.setattr("artifactnet.vlm.heie.evaluate.judge_texts", judge)
    assert evaluate_heie(trained.run_dir)["explanations"]["similarity"] is None
    assert not asked
    found = evaluate_heie(trained.run_dir, chat=SimpleNamespace(model="critic"))
    said = {"model": "critic", "mean": 0.25, "failed": 1, "problem": "no number"}
    assert found["explanations"]["similarity"] == said
    ((pairs, name, cache),) = asked
    assert [reference for reference, _ in pairs] == [TEXT.format(k=k) for k in (10, 11, 12)]
    assert name == "critic"
    assert cache == trained.run_dir / "similarity.jsonl"
    page = (trained.run_dir / "results.md").read_text()
    assert "as critic judges it; it failed on 1" in page
    assert "the judge critic gave no similarity of 1 texts: no number" in page


def test_a_judge_that_fails_takes_no_figures_with_it(trained, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", "sk-judge")
    words = ["evaluate", str(trained.run_dir), "--judge-model", "critic"]
    with serving(lambda request: Reply("no", status=401)) as server:
        judged = [*words, "--judge-url", server.url, "--judge-key-env", "JUDGE_KEY"]
        assert main(judged) == 0
        assert server.requests[0].key == "sk-judge"
        asked = len(server.requests)
        for text in ("template", "given"):
            assert main([*judged, "--text", text]) == 2
            assert "needs --text generate" in capsys.readouterr().err
    assert len(server.requests) == asked
    found = json.loads((trained.run_dir / "results.json").read_text())
    assert found["saliency"]["MSE"] > 0
    said = found["explanations"]["similarity"]
    assert (said["mean"], said["failed"]) == (None, 3)
    assert "status 401" in said["problem"]
    page = (trained.run_dir / "results.md").read_text()
    assert "Warning:** the judge critic gave no similarity of 3 texts: http" in page


def test_from_the_command_line(trained, tmp_path, capsys):
    run = str(trained.run_dir)
    assert main(["evaluate", run, "--text", "template"]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert main(["evaluate", run, "--judge-model", "x"]) == 2
    assert "come together" in capsys.readouterr().err
    assert main(["evaluate", run, "--judge-key-env", "x"]) == 2
    assert "--judge-key-env needs --judge-url" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--text", "given"]) == 2
    assert "for a HEIE" in capsys.readouterr().err


def test_unusable_runs_and_texts(tmp_path, trained, folder, tiny_base):
    silent = config(folder, tiny_base, "mllm.text=none", "loss.text=0")
    with pytest.raises(ArtifactNetError, match="text=given"):
        evaluate_model(load_heie(trained.run_dir), None, silent, "given", folder, folder)
    with pytest.raises(ArtifactNetError, match=r"text=given needs .*short.*mllm\.text=written"):
        evaluate_heie(trained.run_dir, ["mllm.text=short"], "given")
    with pytest.raises(ArtifactNetError, match=r"leave out mllm\.question"):
        evaluate_heie(trained.run_dir, ["mllm.text=short", "mllm.question=Why?"])
    with pytest.raises(ArtifactNetError, match="'x'"):
        evaluate_heie(trained.run_dir, text="x")
    with pytest.raises(ArtifactNetError, match="is not the folder of a run"):
        evaluate_heie(tmp_path)
    (tmp_path / "config.yaml").write_text((trained.run_dir / "config.yaml").read_text())
    with pytest.raises(ArtifactNetError, match=r"has no heie\.json yet; finish the run"):
        evaluate_heie(tmp_path)
