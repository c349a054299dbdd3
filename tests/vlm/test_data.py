"""Examples, their texts, and batches of images of unequal sizes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_heie_run import TEXT, config, example, line, manifest

from artifactnet.data.datamodule import build_splits
from artifactnet.data.manifest_format import write_manifest
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample
from artifactnet.vlm.heie.data import (
    QUESTIONS,
    SHORT_QUESTIONS,
    InStepSampler,
    TextData,
    TextDataset,
    collate,
    heatmap_target,
    target_text,
)
from artifactnet.vlm.text.chain_of_thought import parse_cot
from artifactnet.vlm.text.template import TEMPLATE, describe_annotation


def sample(annotation: Annotation, text: str | None = None, **more) -> Sample:
    record = Record("u", 1, "g", annotation, "folder/a.png")
    image = np.zeros((40, 30, 3), np.uint8)
    return Sample(record, image, text=text, **more)


def masked(text: str | None = None) -> Sample:
    mask = np.zeros((40, 30), np.uint8)
    mask[:10, :10] = 2
    return sample(Annotation.MASK, text, mask=mask)


@pytest.fixture
def processing(heie):
    return heie.processing


def test_a_heatmap_goes_before_a_mask():
    soft = np.full((40, 30), 0.25, np.float32)
    both = sample(Annotation.MASK, mask=masked().mask, heatmap=soft)
    assert torch.equal(heatmap_target(both), torch.from_numpy(soft))
    hard = heatmap_target(masked())
    assert hard.dtype == torch.float32
    assert (hard.sum().item(), hard.max().item()) == (100, 1)
    nothing = sample(Annotation.MASK, mask=masked().mask, heatmap=np.zeros((40, 30), np.float32))
    assert torch.equal(heatmap_target(nothing), hard)  # a heatmap that says nothing
    assert torch.equal(heatmap_target(sample(Annotation.CLEAN)), torch.zeros(40, 30))


def test_where_texts_come_from(processing):
    def text_of(sample, mode):
        return target_text(sample, mode, processing)

    written = TEXT.format(k=1)
    assert text_of(masked(written), "written") == (written, True)
    assert text_of(masked(), "written") == (describe_annotation(masked()), True)
    assert text_of(masked(written), "template") == (describe_annotation(masked()), True)
    assert text_of(masked(written), "none") == (TEMPLATE, False)
    assert text_of(masked(written), "short") == ("texture, top left [MAP][SCORE]", True)
    assert text_of(sample(Annotation.NONE, written), "short") == (TEMPLATE, False)
    # nobody looked: a text made of nothing would call it clean
    assert text_of(sample(Annotation.NONE), "written") == (TEMPLATE, False)
    assert text_of(sample(Annotation.NONE), "template") == (TEMPLATE, False)
    assert text_of(sample(Annotation.NONE, written), "written") == (written, True)
    assert text_of(sample(Annotation.CLEAN), "written")[1]
    for mode in ("written", "template", "none"):
        parse_cot(text_of(masked(), mode)[0])


def test_a_text_of_no_use_names_its_image(processing):
    for text, message in (
        (TEXT.replace("[MAP]", ""), r"^folder/a\.png: its text: .*\[MAP\]"),
        (TEXT.replace("tree", "<|im_end|>"), r"^folder/a\.png: its text: holds '<\|im_end\|>'"),
    ):
        with pytest.raises(ArtifactNetError, match=message):
            target_text(masked(text), "written", processing)


def test_collate_keeps_sizes_and_masks_texts_not_to_be_learned(processing):
    parts = [example(1), example(2, supervised=False, size=(56, 112)), None]
    batch = collate(parts, processing)
    assert batch.inputs.grids == [(1, 1), (1, 2)]
    assert [tuple(one.shape) for one in batch.target] == [(56, 56), (56, 112)]
    learned = (batch.inputs.labels != -100).sum(1).tolist()
    assert learned[0] > 20
    assert learned[1] == 0
    assert batch.tokens == batch.window_tokens == learned[0]
    assert batch.score.tolist() == [0.5, 0.5]
    assert batch.annotation.tolist() == [2, 2]
    assert batch.mask == [None, None]
    batch.mask[1] = torch.zeros(56, 112, dtype=torch.uint8)
    moved = batch.to("meta")
    assert moved.inputs.pixel_values.device.type == moved.target[0].device.type == "meta"
    assert (moved.mask[0], moved.mask[1].device.type) == (None, "meta")
    assert batch.target[0].device.type == "cpu"
    assert collate([None], processing) is None
    failed = ArtifactNetError("x")
    assert collate(failed, processing) is failed


def test_a_description_that_is_not_learned(processing):
    whole, after = example(1), example(1)
    after.described = False
    labels = collate([whole, after], processing).inputs.labels
    tokenizer = processing.processor.tokenizer
    learned = [tokenizer.decode(row[row != -100]) for row in labels]
    assert learned[0].endswith(learned[1])
    assert "### Image Description" in learned[0]
    assert "### Image Description" not in learned[1]
    assert learned[1].split()[:2] == ["###", "Problematic"]


def test_the_share_of_descriptions_that_are_learned(tmp_path, tiny_base, processing):
    def described(share, split="train"):
        own = config(tmp_path, tiny_base, f"mllm.descriptions={share}")
        dataset = TextDataset(build_splits(own.data, 0)[split], own, split == "train", processing)
        return [dataset[epoch, k].described for epoch in range(50) for k in range(2)]

    assert sum(described(1)) == 100
    assert sum(described(0)) == 0
    assert 10 < sum(described(0.3)) < 50
    assert sum(described(0, "val")) == 100


def test_a_text_that_the_model_cannot_take_names_its_image(processing):
    bad = example(2)
    bad.text = bad.text.replace("tree", "tree<|im_end|>")
    found = collate([example(1), bad], processing)
    assert isinstance(found, ArtifactNetError)
    assert str(found).startswith("image 2: ")
    assert "<|im_end|>" in str(found)


def test_questions_are_drawn_by_seed_epoch_and_image(tmp_path, tiny_base, processing):
    data = TextData(config(tmp_path, tiny_base), processing)
    dataset = data.train_loader().dataset

    def asked(epoch):
        return [dataset[epoch, k].question for k in range(8)]

    assert asked(0) == asked(0)
    assert asked(0) != asked(1)
    assert len(set(asked(0))) > 1
    assert set(asked(0)) <= set(QUESTIONS)
    other = TextData(config(tmp_path, tiny_base, "seed=1"), processing).train_loader().dataset
    assert asked(0) != [other[0, k].question for k in range(8)]
    judged = [one for batch in data.example_loader("test") for one in batch]
    assert [one.question for one in judged] == [None] * 3  # the default one
    assert [one.text for one in judged] == [TEXT.format(k=k) for k in (10, 11, 12)]


def test_short_questions_ask_for_short_answers(tmp_path, tiny_base, processing):
    data = TextData(config(tmp_path, tiny_base, "mllm.text=short"), processing)
    dataset = data.train_loader().dataset
    asked = {dataset[epoch, k].question for epoch in range(2) for k in range(8)}
    assert asked == set(SHORT_QUESTIONS)
    judged = [one for batch in data.example_loader("test") for one in batch]
    assert [one.question for one in judged] == [SHORT_QUESTIONS[0]] * 3
    assert all(one.text.endswith(" [MAP][SCORE]") for one in judged)
    # the data has heatmaps alone: its artifacts are of no category
    assert all(one.text.startswith("artificial, ") for one in judged)
    for one in judged:
        assert one.mask.dtype == torch.uint8
        assert torch.equal(one.mask, (one.target > 0).to(torch.uint8))


def test_loaders_give_every_image(tmp_path, tiny_base, processing):
    data = TextData(config(tmp_path, tiny_base), processing)
    batches = list(data.train_loader())
    assert [len(batch.record) for batch in batches] == [4, 4]
    assert len({record.uid for batch in batches for record in batch.record}) == 8
    halves = [next(iter(data.val_loader(rank, 2))).record for rank in (0, 1)]
    assert [len(half) for half in halves] == [1, 1]
    assert data.eval_split == "test"
    assert data.skipped == {"train": [], "val": []}
    with pytest.raises(ArtifactNetError, match="has no x images"):
        data.example_loader("x")


def test_texts_are_counted(tmp_path, tiny_base, processing):
    run = config(tmp_path, tiny_base)
    written = TextData(run, processing).summary
    assert written["texts"]["train"] == {"written": 8, "made": 0, "none": 0}
    assert not [text for text in written["warnings"] if "no written text" in text]
    manifest(tmp_path / "data", texts=False)
    silent = TextData(run, processing).summary
    assert silent["texts"]["test"] == {"written": 0, "made": 3, "none": 0}
    (warning,) = (text for text in silent["warnings"] if "no written text" in text)
    assert warning.startswith("13 of 13 images")
    run.mllm.text = "none"
    assert TextData(run, processing).summary["texts"]["val"]["none"] == 2


def test_an_image_of_two_manifests_is_one_with_the_text_of_the_one(tmp_path, tiny_base, processing):
    folder = tmp_path / "data"
    folder.mkdir()
    whole = line(folder, 0, "train", TEXT.format(k=0))
    others = [line(folder, k, "val", None) for k in (1, 2)]
    blank = replace(whole, score=None, heatmap=None, annotation=Annotation.NONE)
    write_manifest(folder / "set.jsonl", [blank, *others])
    write_manifest(folder / "scores.jsonl", [replace(whole, text=None)])
    run = config(tmp_path, tiny_base)
    run.data.root = str(folder)
    data = TextData(run, processing)
    assert data.summary["texts"]["train"] == {"written": 1, "made": 0, "none": 0}
    assert data.summary["splits"]["train"]["images"] == len(data.train_loader().dataset) == 1
    found = data.train_loader().dataset[0, 0]
    assert (found.text, found.score) == (TEXT.format(k=0), whole.score)
    assert found.record.annotation is Annotation.MASK
    assert found.target.sum() == 400
    assert not [text for text in data.summary["warnings"] if "contradict each other" in text]
    write_manifest(folder / "scores.jsonl", [replace(whole, text=None), replace(whole, score=0.0)])
    data = TextData(run, processing)
    assert "1 images have lines that contradict each other" in " ".join(data.summary["warnings"])
    assert data.train_loader().dataset[0, 0].score == whole.score


@pytest.mark.parametrize("k", [0, 8, 10])  # of the training, validation and test split
def test_a_control_word_is_said_before_training_or_skipped(tmp_path, tiny_base, processing, k):
    run = config(tmp_path, tiny_base)
    path = tmp_path / "data" / "set.jsonl"
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    rows[k]["text"] = rows[k]["text"].replace("tree", "tree<|im_end|>")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ArtifactNetError, match=rf"0_{k}\.png: its text: holds '<\|im_end\|>'"):
        TextData(run, processing)
    run.data.on_error = "skip"
    data = TextData(run, processing)
    batches = [*data.train_loader(), *data.val_loader()]
    assert [len(batch.record) for batch in batches] == [4, 4, 1 if k == 8 else 2]
    assert sum(len(batch) for batch in data.example_loader("test")) == (2 if k == 10 else 3)
    assert sum(map(len, data.skipped.values())) == 1


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_processes_of_fsdp_have_equally_many_batches(count, size):
    shares = [InStepSampler([1] * count, batch_size=size, rank=rank, world=3) for rank in range(3)]
    keys = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(own) for own in keys]
    assert len({-(-len(own) // size) for own in keys}) == 1
    assert sorted(key.item for own in keys for key in own if not key.repeat) == list(range(count))
    for own in keys:
        surplus = [place for place, key in enumerate(own) if key.repeat]
        assert surplus in ([], [len(own) - 1])
        assert not surplus or surplus[0] % size == 0  # alone in its batch


def test_a_surplus_batch_is_marked(tmp_path, tiny_base, processing):
    run = config(tmp_path, tiny_base, "train.strategy=fsdp", "data.eval_batch_size=1")
    data = TextData(run, processing)
    shares = [[b.padding for b in data.val_loader(rank, 3)] for rank in range(3)]
    assert shares == [[False], [False], [True]]
    assert not any(batch.padding for batch in data.train_loader(0, 3))


def test_a_bad_image_is_replaced_in_training_and_left_out_of_evaluation(
    tmp_path, tiny_base, processing, caplog
):
    run = config(tmp_path, tiny_base, "data.on_error=skip")
    for k in (0, 10):
        (tmp_path / "data" / f"0_{k}.png").write_bytes(b"no image")
    data = TextData(run, processing)
    batches = list(data.train_loader())
    assert [len(batch.record) for batch in batches] == [4, 4]
    assert len({record.uid for batch in batches for record in batch.record}) == 7
    assert sum(len(batch) for batch in data.example_loader("test")) == 2
    assert [len(data.skipped[split]) for split in ("train", "test")] == [1, 1]
    assert all(f"0_{k}.png" in text for k, text in zip((0, 10), caplog.messages, strict=True))
    assert all(text.startswith("skipped ") for text in caplog.messages)
    run.data.on_error = "raise"
    with pytest.raises(ArtifactNetError, match="0_10"):
        list(TextData(run, processing).example_loader("test"))
    for k in range(8):
        (tmp_path / "data" / f"0_{k}.png").write_bytes(b"no image")
    run.data.on_error = "skip"
    with pytest.raises(ArtifactNetError, match="not one usable fake image"):
        list(TextData(run, processing).train_loader())


def test_workers_give_the_same_batches(tmp_path, tiny_base, processing):
    run = config(tmp_path, tiny_base)
    here = list(TextData(run, processing).train_loader())
    run.data.workers = 1
    there = list(TextData(run, processing).train_loader())
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.inputs.input_ids, b.inputs.input_ids)
        assert torch.equal(a.inputs.pixel_values, b.inputs.pixel_values)
        assert [r.uid for r in a.record] == [r.uid for r in b.record]


def test_batches_know_the_tokens_of_their_optimizer_step(tmp_path, tiny_base, processing):
    options = ("data.batch_size=2", "train.accumulate=3", "data.workers=1")
    run = config(tmp_path, tiny_base, *options)
    batches = list(TextData(run, processing).train_loader())
    assert [batch.window_batches for batch in batches] == [3, 3, 3, 1]
    first, last = sum(batch.tokens for batch in batches[:3]), batches[3].tokens
    assert [batch.window_tokens for batch in batches] == [first, first, first, last]
    learned = sum(int((batch.inputs.labels != -100).sum()) for batch in batches)
    assert learned == first + last > 0
