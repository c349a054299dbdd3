"""FakeXplainer's two stages on tiny models: what they leave, and kill and resume."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest
import torch
from safetensors.torch import load_file

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("trl", reason="needs the extra mllm-train")

from tiny_fakexplainer import config, save_images  # noqa: E402

from artifactnet.config import load  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm.fakexplainer import trainer  # noqa: E402
from artifactnet.vlm.fakexplainer.rewards import ProgressiveRule  # noqa: E402
from artifactnet.vlm.fakexplainer.saving import (  # noqa: E402
    build_fakexplainer,
    load_fakexplainer,
    save_fakexplainer,
)
from artifactnet.vlm.fakexplainer.trainer import train_fakexplainer  # noqa: E402
from artifactnet.vlm.tuned import WEIGHTS  # noqa: E402

FAMILIES = ("qwen", "internvl")
# adapters on the language model, and the whole projector, which moves far in three steps
PROJECTOR = ("mllm.tune=language_projector", "mllm.lora_dropout=0", "optim.head_lr=0.05")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    qwen = tiny_mllm.save_qwen(folder / "qwen")
    internvl = tiny_mllm.save_base(folder / "internvl")
    return {"qwen": qwen, "internvl": internvl, "projector": internvl}


@pytest.fixture(scope="module")
def sft_runs(bases, manifest, tmp_path_factory) -> dict[str, Path]:
    """Three steps of stage 1 on each family, and with the projector of one."""
    out = tmp_path_factory.mktemp("sft")

    def run(name: str, *overrides: str) -> Path:
        made = config(bases[name], manifest, out, f"name={name}", *overrides)
        return train_fakexplainer(made).run_dir

    return {name: run(name) for name in FAMILIES} | {"projector": run("projector", *PROJECTOR)}


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_leaves_adapters_metrics_and_results(sft_runs, family):
    run = sft_runs[family]
    made = {"config.yaml", "fakexplainer.json", WEIGHTS, "results.json", "finished.json"}
    assert made <= {path.name for path in run.iterdir()}
    lines = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").open()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    results = json.loads((run / "results.json").read_text())
    assert results["images"] == 4
    assert results["training"]["steps"] == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_has_an_adapter_that_moved(sft_runs, bases, manifest, tmp_path, family):
    trained = load_fakexplainer(sft_runs[family], merge=False)
    linear = {
        name
        for name, module in build_fakexplainer(
            replace(trained.mllm, lora_rank=0), "cpu"
        ).model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    }
    state = load_file(sft_runs[family] / WEIGHTS)
    moved = {
        name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        for name, weight in state.items()
        if name.endswith(".lora_B.weight") and bool(weight.abs().sum() > 0)  # B starts at zero
    }
    assert moved == linear
    parts = ("visual" if family == "qwen" else "vision_tower", "language_model")
    assert all(any(part in name for name in moved) for part in parts)


@pytest.mark.parametrize("name", ["qwen", "projector"])
def test_saved_loaded_and_merged_adapters_give_the_same_logits(sft_runs, tmp_path, name):
    trained = load_fakexplainer(sft_runs[name], merge=False)
    batch = trained.processing.encode([tiny_mllm.random_image(84, 84)], ["<think>"])
    with torch.no_grad():
        expected = trained.model(**batch).logits
        save_fakexplainer(trained, tmp_path / "copy", {"notices": []})
        again = load_fakexplainer(tmp_path / "copy", merge=False).model(**batch).logits
        merged = load_fakexplainer(tmp_path / "copy", merge=True).model(**batch).logits
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    fresh = build_fakexplainer(trained.mllm, "cpu").model.eval()
    with torch.no_grad():
        assert not torch.allclose(fresh(**batch).logits, expected)


def projector_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the projector among those of a base or of a run."""
    return {
        name.rpartition("multi_modal_projector.")[2].removeprefix("modules_to_save."): weight
        for name, weight in state.items()
        if "multi_modal_projector." in name
    }


class AnyTaste(ProgressiveRule):
    """Rewards that differ with every answer; true ones of random answers are mostly equal."""

    def __call__(self, text, row, step, steps):
        return replace(super().__call__(text, row, step, steps), total=crc32(text.encode()) / 2**32)


def test_a_projector_learns_in_both_stages(sft_runs, bases, manifest, tmp_path, monkeypatch):
    base = projector_of(load_file(bases["projector"] / "model.safetensors"))
    first = projector_of(load_file(sft_runs["projector"] / WEIGHTS))
    assert base.keys() == first.keys()
    # AdamW's first steps are as long as the rate, which that of the adapters would not be
    assert all(0.01 < float((first[name] - base[name]).abs().max()) < 0.2 for name in base)
    state = load_file(sft_runs["projector"] / WEIGHTS)
    adapters = [weight for name, weight in state.items() if name.endswith(".lora_B.weight")]
    assert all(0 < float(weight.abs().max()) < 1e-3 for weight in adapters)  # they start at zero

    more = ["mllm.tune=language_projector", f"mllm.adapters={sft_runs['projector']}"]
    more += ["mllm.grpo.beta=1", "optim.lr=1e-3"]
    monkeypatch.setattr(trainer, "ProgressiveRule", AnyTaste)
    run = config(bases["projector"], manifest, tmp_path, *more, stage="grpo")
    folder = train_fakexplainer(run).run_dir
    second = projector_of(load_file(folder / WEIGHTS))
    assert base.keys() == second.keys()
    assert all(0 < float((second[k] - first[k]).abs().max()) < 0.01 for k in base)
    # the reference is the model of the first stage, with its projector, and does not move
    lines = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").open()]
    divergence = [line["kl"] for line in lines if "kl" in line]
    assert divergence[0] == pytest.approx(0, abs=1e-6)
    assert divergence[-1] > 1e-6


class Killed(BaseException):
    """Stands for a signal: nothing in the package catches it."""


@pytest.mark.parametrize(
    ("stage", "family"),
    [("sft", "qwen"), ("grpo", "internvl"), ("sft", "projector"), ("grpo", "projector")],
)
def test_a_killed_run_resumes_to_the_same_weights(
    sft_runs, bases, manifest, tmp_path, monkeypatch, stage, family
):
    more = [f"mllm.adapters={sft_runs[family]}"] if stage == "grpo" else []
    more += PROJECTOR if family == "projector" else ()

    def run(*overrides: str):
        return config(bases[family], manifest, tmp_path, *more, *overrides, stage=stage)

    whole = train_fakexplainer(run("name=whole")).run_dir
    from artifactnet.vlm import tuning_callbacks as callbacks

    on_save = callbacks.WholeCheckpoints.on_save

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 2:  # while the second checkpoint is written
            raise Killed
        on_save(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.WholeCheckpoints, "on_save", kill)
        with pytest.raises(Killed):
            train_fakexplainer(run("name=killed"))
    folder = tmp_path / "killed"
    names = {path.name for path in (folder / "checkpoints").glob("checkpoint-*")}
    assert names == {"checkpoint-1", "checkpoint-2"}
    (folder / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors").write_bytes(b"half")
    train_fakexplainer(run("name=killed", "resume=true"))
    lines = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]  # none twice
    expected, found = load_file(whole / WEIGHTS), load_file(folder / WEIGHTS)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0, msg=name)
    start = load_file(sft_runs[family] / WEIGHTS)
    if stage == "grpo":  # rewards of random answers are mostly equal: it must have learned anyway
        assert all("ref" not in name for name in expected)
        assert start.keys() == expected.keys()


def test_grpo_logs_rewards_and_answers(sft_runs, bases, manifest, tmp_path):
    run = config(
        bases["qwen"], manifest, tmp_path, f"mllm.adapters={sft_runs['qwen']}", stage="grpo"
    )
    folder = train_fakexplainer(run).run_dir
    lines = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").open()]
    steps = [line for line in lines if "reward" in line]
    assert len(steps) == 3
    parts = {"reward_label", "reward_grounding", "reward_format", "regions", "area_share"}
    parts |= {"format_lost", "frac_reward_zero_std", "completions/clipped_ratio", "kl"}
    assert parts <= steps[0].keys()
    assert [line["grounding_weight"] for line in steps] == pytest.approx([0.5, 2 / 3, 5 / 6])
    answers = [json.loads(line) for line in (folder / "logs" / "answers.jsonl").open()]
    assert {"step", "image", "answer", "reward", "label", "format"} <= answers[0].keys()
    # copies for the reference stay in checkpoints
    assert all("checkpoints" in path.parts for path in folder.rglob("ref"))


def test_the_recipes_for_a_laptop_train_from_demo_data_to_rewards(bases, tmp_path):
    """On a tiny base, whose tokenizer makes longer answers."""
    few = [f"data.demo_{key}" for key in ("size=64", "train=4", "val=1", "test=2")]
    few += ["mllm.max_new_tokens=400", "train.max_steps=2", f"out={tmp_path}", "train.log_every=1"]
    few += [f"mllm.base={bases['internvl']}", "train.device=cpu", "train.tensorboard=false"]
    few += ["mllm.grpo.generations=2", "data.batch_size=2"]
    first = train_fakexplainer(load("fakexplainer_nano_sft", few))
    assert json.loads((first.run_dir / "results.json").read_text())["images"] == 4
    few += [f"mllm.adapters={first.run_dir}"]
    second = train_fakexplainer(load("fakexplainer_nano_grpo", few))
    row = second.results["fakexplainer"]["all"]
    assert row["reward_images"] == 4
    parts = [row[f"reward_{part}"] for part in ("label", "grounding", "format")]
    assert row["reward"] == pytest.approx(sum(parts))
    assert second.results["training"]["steps"] == 2
    with pytest.raises(ArtifactNetError, match="was trained with mllm.layout=brief, not user"):
        train_fakexplainer(load("fakexplainer_nano_grpo", [*few, "name=n", "mllm.layout=user"]))


@pytest.mark.slow
@pytest.mark.parametrize("save", [tiny_mllm.save_qwen3, tiny_mllm.save_llava])
def test_other_families_run_both_stages_with_gradient_checkpointing(manifest, tmp_path, save):
    base = save(tmp_path / "base")
    more = ("mllm.gradient_checkpointing=true", "train.max_steps=1", "mllm.max_new_tokens=250")
    first = train_fakexplainer(config(base, manifest, tmp_path, *more)).run_dir
    more = (*more, f"mllm.adapters={first}")
    second = train_fakexplainer(config(base, manifest, tmp_path, *more, stage="grpo"))
    assert second.results["images"] == 4
    assert load_file(second.run_dir / WEIGHTS).keys() == load_file(first / WEIGHTS).keys()


@pytest.mark.slow
def test_two_processes_train_like_one_with_twice_the_batch(bases, manifest, tmp_path):
    def losses(*overrides: str) -> list[float]:
        more = ("train.max_steps=2", "mllm.lora_dropout=0", *overrides)
        run = train_fakexplainer(config(bases["qwen"], manifest, tmp_path, *more)).run_dir
        lines = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").open()]
        return [line["loss"] for line in lines if "loss" in line]

    before = signal.getsignal(signal.SIGTERM)
    two = losses("name=two", "train.devices=2")
    assert signal.getsignal(signal.SIGTERM) is before  # PyTorch's launcher replaces it
    one = losses("name=one", "data.batch_size=2")
    assert two == pytest.approx(one, rel=1e-4)
    assert len(two) == 2
    weights = [load_file(tmp_path / name / WEIGHTS) for name in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5)


def test_vllm_samples_no_forbidden_token():
    from artifactnet.config import GrpoConfig
    from artifactnet.vlm.grpo import _sampling

    bias = {7: -100.0, 9: -100.0}
    for mode, key in (
        ("colocate", "vllm_gpu_memory_utilization"),
        ("server", "vllm_server_base_url"),
    ):
        found = _sampling(GrpoConfig(vllm=mode), [7, 9])
        assert found["generation_kwargs"] == {"logit_bias": bias}
        assert (found["vllm_mode"], key in found) == (mode, True)
    assert _sampling(GrpoConfig(), [7]) == {"generation_kwargs": {"suppress_tokens": [7]}}


@pytest.fixture
def no_base(monkeypatch):
    """What is refused must be refused before the base is loaded."""

    def load(*_, **__):
        raise AssertionError("the base was loaded")

    monkeypatch.setattr("artifactnet.vlm.tuned.load_base", load)


@pytest.mark.slow
def test_an_error_of_two_processes_is_one_line(bases, manifest, tmp_path):
    run = config(bases["qwen"], manifest, tmp_path, "train.devices=2", "mllm.max_new_tokens=20")
    with pytest.raises(ArtifactNetError) as error:
        train_fakexplainer(run)
    assert "more than mllm.max_new_tokens=20" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "stage", "message"),
    [
        (["mllm.adapters=null"], "grpo", "mllm.adapters must name an sft run"),
        (["mllm.adapters=nowhere"], "grpo", "mllm.adapters=nowhere: no fakexplainer.json there"),
        (["mllm.max_new_tokens=20"], "sft", "more than mllm.max_new_tokens=20"),
        (["mllm.cold_start=false", "mllm.grpo.generations=3"], "grpo", "must divide data.batch"),
        (
            ["mllm.cold_start=false", "mllm.adapters=null", "mllm.layout=brief"],
            "grpo",
            "mllm.layout must be user or system without mllm.adapters",
        ),
        (["mllm.grpo.generations=1"], "sft", "mllm.grpo.generations must be at least 2"),
        (["mllm.grpo.vllm=colocate"], "grpo", "mllm.grpo.vllm needs vLLM"),
        (["optim.layer_decay=0.5"], "sft", "optim.layer_decay must be 1"),
        (["optim.head_lr=1e-3"], "sft", "optim.head_lr is for mllm.tune=language_projector"),
        (["train.strategy=fsdp"], "sft", "train.strategy must be auto, ddp or deepspeed"),
        (["data.pairs=true", "data.balance=false"], "sft", "data.pairs must be false"),
        (["mllm.quantize=4bit", "train.strategy=deepspeed_stage_2"], "sft", "must be auto or ddp"),
        (["mllm.quantize=4bit", "mllm.tune=language_projector"], "sft", "mllm.tune must be all"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    bases, manifest, tmp_path, overrides, stage, message, no_base
):
    with pytest.raises(ArtifactNetError) as error:
        train_fakexplainer(config(bases["qwen"], manifest, tmp_path, *overrides, stage=stage))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": "a <|im_end|> hand"}, "control word"),
        ({"only": 1}, "only fake"),
        ({"only": 0}, "only real"),
        ({"bbox": [10, 10, 500, 40]}, "images.jsonl"),
    ],
)
def test_bad_data_are_refused_by_name(bases, manifest, tmp_path, change, message, no_base):
    shutil.copytree(manifest.parent, tmp_path / "images")
    path = tmp_path / "images" / manifest.name
    lines = [json.loads(line) for line in path.open()]
    if "only" in change:
        lines = [one for one in lines if one["label"] == change["only"] or one["split"] != "train"]
    else:
        fake = next(one for one in lines if one["label"])
        fake["regions"][0] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ArtifactNetError) as error:
        train_fakexplainer(config(bases["qwen"], path, tmp_path / "out"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
