"""A tiny HEIE from its config to its results: alone, resumed, and on two processes."""

import csv
import errno
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from safetensors.torch import load_file
from tiny_heie_run import TEXT, config, line, manifest

from artifactnet.cli import main
from artifactnet.config import Config
from artifactnet.data.manifest_format import write_manifest
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie.data import TextData
from artifactnet.vlm.heie.module import HeieModule, parameter_groups
from artifactnet.vlm.heie.saving import load_heie
from artifactnet.vlm.heie.trainer import lightning_strategy, train_heie

REPOSITORY = Path(__file__).parents[2]
WORDS_ALONE = (
    *("loss.words=1", "loss.text=0", "mllm.text=none"),
    *(f"loss.heatmap.{term}=0" for term in ("focal", "laplace", "correlation", "score")),
    *("mllm.tune=projector", "mllm.lora_rank=0"),
)


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_base):
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    return config(folder, tiny_base, "train.epochs=2", "name=two", "optim.schedule=constant")


@pytest.fixture(scope="module")
def result(run):
    return train_heie(run)


def test_a_run_leaves_what_a_run_leaves(run, result):
    names = {path.name for path in result.run_dir.iterdir()}
    made = {"config.yaml", "provenance.json", "data.json", "last.ckpt", "heie.json", "logs"}
    made |= {"heie.safetensors", "results.json", "results.md", "answers.jsonl", "finished.json"}
    assert made <= names
    found = json.loads((result.run_dir / "results.json").read_text())
    assert found == result.results
    assert (found["images"], found["data"]["split"], found["text"]) == (3, "test", "generate")
    assert found["saliency"]["images"] == found["scores"]["images"] == 3
    assert found["explanations"]["texts"] == 3
    assert found["explanations"]["perplexity"] > 1
    assert found["notices"] == []
    assert found["training"]["epochs"] == 2
    assert found["training"]["steps"] == 4
    assert found["training"]["parameters"] < 60_000  # not those of the base
    page = (result.run_dir / "results.md").read_text()
    header = "| MSE (all) | MSE (GT=0) | KLD | CC | SIM | AUC-Judd | NSS | PLCC | SRCC |"
    assert header in page
    assert "| perplexity | BLEU | ROUGE-L |" in page
    data = json.loads((result.run_dir / "data.json").read_text())
    assert data["texts"]["train"]["written"] == 8


def test_the_saved_model_is_the_one_that_was_validated(run, result):
    model = load_heie(result.run_dir)
    module = HeieModule(model, run).eval()
    with torch.no_grad():
        for k, batch in enumerate(TextData(run, model.processing).val_loader()):
            module.validation_step(batch, k)
    found = module.validation_figures()
    assert found == pytest.approx(result.results["training"]["best_validation"], rel=1e-4)
    state = checkpoint(result.run_dir)["state_dict"]  # what learns, and nothing else
    assert set(state) == {
        f"model.{name}" for name, p in model.named_parameters() if p.requires_grad
    }
    adapters = [value for name, value in state.items() if "lora_B" in name]
    assert adapters
    assert all(value.abs().max() > 0 for value in adapters)  # they begin with zeros
    facts = json.loads((result.run_dir / "heie.json").read_text())["extra"]
    assert facts["validation"] == result.results["training"]["best_validation"]
    assert facts["epoch"] == result.results["training"]["best_epoch"]


def test_a_resumed_run_ends_where_it_would_have(tmp_path, tiny_base, run, result):
    options = (f"data.root={run.data.root}", "name=parts", "optim.schedule=constant")
    half = config(tmp_path, tiny_base, *options, "train.epochs=1")
    half.data.root = run.data.root
    train_heie(half)
    with pytest.raises(ArtifactNetError, match="holds a finished run"):
        train_heie(half)
    half.train.epochs, half.resume = 2, True
    again = train_heie(half)
    first, second = checkpoint(result.run_dir), checkpoint(again.run_dir)
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        assert torch.allclose(value, second["state_dict"][name], atol=1e-6), name
    assert second["global_step"] == first["global_step"] == 4


def test_words_alone_go_on_where_they_stopped(tmp_path, tiny_base):
    options = (*WORDS_ALONE, "optim.schedule=constant")
    whole = train_heie(config(tmp_path, tiny_base, *options, "name=whole", "train.epochs=2"))
    half = config(tmp_path, tiny_base, *options, "name=half")
    first = train_heie(half)
    assert first.results["explanations"] is None
    nearest = {f"nearest_{name}" for name in ("category", "clean", "place")}
    assert first.results["training"]["best_validation"].keys() == {"loss", "words", *nearest}
    half.train.epochs, half.resume = 2, True
    again = checkpoint(train_heie(half).run_dir)["state_dict"]
    wanted = checkpoint(whole.run_dir)["state_dict"]
    assert again.keys() == wanted.keys()
    projector = [name for name in wanted if "multi_modal_projector" in name]
    assert projector
    for name, value in wanted.items():
        assert torch.allclose(value, again[name], atol=1e-6), name


def test_without_texts(tmp_path, tiny_base, capsys):
    manifest(tmp_path / "data", texts=False)
    options = ("mllm.text=none", "loss.text=0", "loss.heatmap.score=0", "name=silent")
    found = train_heie(config(tmp_path, tiny_base, *options)).results
    assert found["text"] == "template"
    assert found["explanations"] is None
    assert "text" not in found["training"]["best_validation"]
    assert [text.partition(" is ")[0] for text in found["notices"]] == ["the score", "the text"]
    assert "a fixed text" in (tmp_path / "runs" / "silent" / "results.md").read_text()
    assert "use it:" in capsys.readouterr().out


def test_everything_learns_without_adapters(tmp_path, tiny_base):
    found = train_heie(
        config(tmp_path, tiny_base, "mllm.lora_rank=0", "name=full", "loss.text=0.5")
    )
    state = checkpoint(found.run_dir)["state_dict"]
    assert any(name.endswith("q_proj.weight") for name in state)
    assert found.results["training"]["parameters"] > 60_000
    model = load_heie(found.run_dir)
    name = next(name for name in state if name.endswith("q_proj.weight"))
    saved = dict(model.named_parameters())[name.removeprefix("model.")]
    assert torch.equal(saved, state[name])


def test_from_the_command_line(tmp_path, tiny_base, capsys):
    config(tmp_path, tiny_base)
    words = [str(tmp_path / "tiny.yaml"), f"out={tmp_path / 'runs'}", "train.max_steps=1"]
    assert main(["train", *words]) == 0
    text = capsys.readouterr().out
    assert "HEIE on" in text
    assert f"artifactnet predict photo.jpg --model {tmp_path / 'runs' / 'tiny'}" in text
    assert main(["train", *words]) == 2
    assert "overwrite=true replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["optim.ema=0.9"], r"optim\.ema must be 0"),
        (["freeze=[head]"], "freeze must be empty"),
        (["init_from=x"], "init_from must be null"),
        (["mllm.quantize=8bit", "train.strategy=fsdp"], r"train\.strategy must be auto or ddp"),
        (["data.on_error=skip", "train.strategy=fsdp"], r"data\.on_error must be raise with"),
        ([*WORDS_ALONE, "train.strategy=fsdp"], r"train\.strategy must not be fsdp with mllm\.tu"),
        (["train.strategy=deepspeed_stage_2"], "needs GPUs; fsdp runs on CPUs too"),
        (["train.precision=16"], r"train\.precision=16 needs a GPU"),
        (["model.heatmap.tile=112", "model.image_size=[112,112]"], r"set model\.heatmap\.tile=56"),
    ],
)
def test_what_is_not_to_be_had_is_said_at_once(tmp_path, tiny_base, options, message):
    with pytest.raises(ArtifactNetError, match=message):
        train_heie(config(tmp_path, tiny_base, *options))
    assert not (tmp_path / "runs").exists()


def test_strategies(tmp_path, tiny_base, monkeypatch):
    def chosen(*options, device="cuda"):
        return lightning_strategy(config(tmp_path, tiny_base, *options), device)

    assert chosen() == "auto"
    assert chosen("train.devices=2") == "ddp"
    # the paper's recipe: focal, Laplace and score reach everything that learns
    assert chosen("train.devices=2", "loss.heatmap.correlation=0") == "ddp"
    for term in ("score", "laplace"):
        untaught = chosen("train.devices=2", f"loss.heatmap.{term}=0")
        assert untaught == "ddp_find_unused_parameters_true"
    assert chosen(*WORDS_ALONE, "train.devices=2") == "ddp_find_unused_parameters_true"
    silent = ("mllm.text=none", "loss.text=0", "train.strategy=ddp")
    assert chosen(*silent) == "ddp_find_unused_parameters_true"
    sharded = chosen("train.strategy=fsdp", "train.devices=2", device="cpu")
    assert type(sharded).__name__ == "ModelParallelStrategy"
    monkeypatch.setattr("artifactnet.vlm.heie.trainer.find_spec", lambda name: object())
    # its constructor imports deepspeed
    monkeypatch.setattr("artifactnet.vlm.heie.trainer.DeepSpeedStrategy", dict)
    divided = chosen("train.strategy=deepspeed_stage_2")
    assert divided == {"stage": 2, "exclude_frozen_parameters": True}
    inspect.signature(DeepSpeedStrategy).bind(**divided)
    monkeypatch.setattr("artifactnet.vlm.heie.trainer.find_spec", lambda name: None)
    with pytest.raises(ArtifactNetError, match="pip install 'deepspeed"):
        chosen("train.strategy=deepspeed_stage_2")


def test_a_full_disk_says_how_to_go_on(tmp_path, tiny_base, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("artifactnet.vlm.heie.trainer.tables.write", refuse)
    with pytest.raises(ArtifactNetError, match=r"the disk is full.*resume=true"):
        train_heie(config(tmp_path, tiny_base, "train.max_steps=1"))


ALL_RUNS = """
import json, os, shutil, sys
from artifactnet.cli import main
for arguments in json.loads(sys.argv[1]):
    if "resume=true" in arguments and os.environ.get("LOCAL_RANK", "0") == "0":
        shutil.copytree("runs/fsdp", "runs/first")
    assert main(arguments) == 0
"""
SAME = (
    *("optim.lr=1e-4", "optim.schedule=constant", "optim.clip_norm=0.5"),
    "data.eval_batch_size=1",
)


@pytest.fixture(scope="module")
def distributed(tmp_path_factory, tiny_base):
    """A run of one process, and runs of two that are started once for all of them.

    Lengths of texts differ, and processes divide each batch further. Three validation images, one
    a batch: with sharded weights the shorter share must not end first.
    """
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "data").mkdir()
    splits = ["train"] * 8 + ["val"] * 3 + ["test"]
    lines = []
    for k, split in enumerate(splits):
        text = TEXT.format(k=k).replace("A street", "A street, " * (1 + 3 * k))
        lines.append(line(folder / "data", k, split, text))
    write_manifest(folder / "data" / "set.jsonl", lines)
    train_heie(config(folder, tiny_base, *SAME, "name=one", "data.batch_size=8"))
    both = ["train", str(folder / "tiny.yaml"), f"out={folder / 'runs'}", "train.devices=2", *SAME]
    parts = ("data.batch_size=2", "train.accumulate=2")
    fsdp = ("name=fsdp", "train.strategy=fsdp", "data.batch_size=4")
    runs = [
        [*both, "name=ddp", "train.strategy=ddp", *parts],
        [*both, *fsdp],
        [*both, *fsdp, "train.epochs=2", "resume=true"],
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    (folder / "runs.py").write_text(ALL_RUNS)
    command = [sys.executable, "runs.py", json.dumps(runs)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("use it:") == len(runs)
    return folder / "runs"


def first_loss(folder: Path) -> float:
    with open(folder / "logs" / "version_0" / "metrics.csv", newline="") as handle:
        rows = [row["train/loss_epoch"] for row in csv.DictReader(handle)]
    return next(float(value) for value in rows if value)


def moments(folder: Path, run: Config, everything: bool) -> dict[str, torch.Tensor]:
    """First moment of each learning parameter: after one step 0.1 times its gradient."""
    module = HeieModule(load_heie(folder), run)
    name_of = {id(p): name for name, p in module.named_parameters()}
    order = [name_of[id(p)] for g in parameter_groups(module.model, run.optim) for p in g["params"]]
    if everything:  # sharded ones are numbered with those that do not learn
        order = list(name_of.values())
    state = checkpoint(folder)["optimizer_states"][0]["state"]
    return {order[key]: moment["exp_avg"] for key, moment in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "first"])
def test_two_processes_take_the_step_of_one(distributed, tiny_base, name):
    one, two = distributed / "one", distributed / name
    run = config(distributed.parent, tiny_base, *SAME)
    assert first_loss(two) == pytest.approx(first_loss(one), rel=1e-5)
    a, b = moments(one, run, False), moments(two, run, name == "first")
    assert a.keys() == b.keys()
    for key, moment in a.items():
        assert torch.allclose(moment, b[key].reshape(moment.shape), rtol=1e-3, atol=1e-6), key
    assert max(float(moment.abs().max()) for moment in b.values()) > 1e-4
    saved = [load_file(folder / "heie.safetensors") for folder in (one, two)]
    assert saved[0].keys() == saved[1].keys()
    close = [torch.isclose(v, saved[1][k], atol=2e-5).flatten() for k, v in saved[0].items()]
    assert torch.cat(close).float().mean() > 0.99  # Adam divides by nearly nothing
    files = [folder / "results.json" for folder in (one, two)]
    alone, shared = (json.loads(f.read_text())["training"]["best_validation"] for f in files)
    assert shared == pytest.approx(alone, rel=1e-3)


@pytest.mark.slow
def test_a_sharded_run_resumes_from_one_file(distributed):
    first, again = distributed / "first", distributed / "fsdp"
    assert json.loads((again / "results.json").read_text())["training"]["steps"] == 2
    assert checkpoint(again)["state_dict"].keys() == checkpoint(first)["state_dict"].keys()
    reached = checkpoint(first)["optimizer_states"][0]["state"].keys()
    state = checkpoint(again)["optimizer_states"][0]["state"]
    assert {float(state[key]["step"]) for key in reached} == {2.0}
