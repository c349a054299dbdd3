"""Image tokens near the words for what they show: labels and loss against loops, and a training."""

import copy
import math

import numpy as np
import pytest
import torch
from tiny_heie_run import example
from tiny_mllm import random_image

pytest.importorskip("transformers")

from artifactnet.config import ConfigError, load
from artifactnet.vlm.heie.data import collate
from artifactnet.vlm.heie.module import HeieModule
from artifactnet.vlm.heie.trainer import train_heie
from artifactnet.vlm.heie.words import WordLoss, token_labels
from artifactnet.vlm.text.places import ROW_FIRST
from artifactnet.vlm.text.template import CATEGORY_WORDS

TEXTURE, SYMBOL, UNCATEGORIZED = 1 << 1, 1 << 3, 1


class Letters:
    """A tokenizer whose tokens are the letters of a word."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        assert not add_special_tokens
        assert text[0] == " "
        return {"input_ids": [ord(letter) - ord("a") for letter in text[1:].replace(" ", "")]}


def embedding(word: str, table: np.ndarray) -> np.ndarray:
    return np.mean([table[ord(letter) - ord("a")] for letter in word.replace(" ", "")], axis=0)


def test_a_token_has_the_category_that_covers_a_quarter_of_it():
    mask = torch.zeros(8, 12, dtype=torch.uint8)  # tokens of 4 x 4
    mask[0:2, 0:2] |= TEXTURE  # 4 of 16: a quarter
    mask[0:1, 4:7] |= TEXTURE  # 3 of 16: less
    mask[4:8, 8:12] |= TEXTURE
    mask[5:8, 8:12] |= SYMBOL  # the same token, but 12 of 16
    assert token_labels(mask, (2, 3)).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_an_edit_smaller_than_a_quarter_of_a_token_is_not_lost():
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[5, 5] = UNCATEGORIZED
    mask[0, 0] = mask[0, 1] = SYMBOL
    mask[0, 7] = SYMBOL  # its other token has more of it
    assert token_labels(mask, (2, 2)).tolist() == [[3, 0], [0, 8]]


def test_labels_of_masks_that_tokens_do_not_divide():
    mask = torch.zeros(10, 9, dtype=torch.uint8)
    mask[:, 6:] = TEXTURE
    assert token_labels(mask, (2, 3)).tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("cell", [(1, 4), (2, 1), (2, 5)])  # none on a diagonal of its tile
def test_labels_are_in_the_order_of_internvls_image_tokens(heie, cell):
    # without attention an image token sees its own patches alone
    heie.inner.vision_tower.encoder.layer = torch.nn.ModuleList()
    loss = WordLoss(Letters(), torch.eye(26), cells=2)
    image, mask = random_image(112, 168), torch.zeros(112, 168, dtype=torch.uint8)
    edited = image.copy()
    inside = tuple(slice(28 * k + 8, 28 * k + 20) for k in cell)  # tokens of 28 x 28 pixels
    edited[inside] = 255 - edited[inside]
    mask[inside] = TEXTURE
    inputs = heie.processing.prompt([image, edited])
    assert inputs.grids == [(2, 3), (2, 3)]
    with torch.no_grad():
        before, after = heie(inputs, language=False).image_tokens.chunk(2)
    changed = (before != after).any(-1)
    assert changed.sum(1).tolist().count(1) == 2  # a token of one tile, and one of the thumbnail
    assert torch.equal(changed, loss.labels(mask, (2, 3)) > 0)


def test_the_loss_against_loops():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(26, 6))
    loss = WordLoss(Letters(), torch.from_numpy(table), cells=2).double()
    mask = torch.zeros(8, 16, dtype=torch.uint8)
    mask[0:4, 8:12] = SYMBOL  # the upper left token of the right one of two tiles
    tokens = rng.normal(size=(3, 4, 6)).astype(np.float32)  # two tiles and a thumbnail
    words = [embedding(w, table) for w in ("clean", *CATEGORY_WORDS.values())]
    length = np.mean([word @ word for word in words])
    # labels and places by hand: rows of two tokens lie in the first and third third
    labels = [[0, 0, 0, 0], [3, 0, 0, 0], [0, 3, 0, 0]]
    columns = [
        *(["left", "middle", "left", "middle"],),  # columns 0, 1 of 4: middles at 1/8, 3/8
        *(["middle", "right", "middle", "right"],),
        *(["left", "right", "left", "right"],),
    ]
    total = weights = 0.0
    for piece in range(3):
        for token in range(4):
            place = ("top" if token < 2 else "bottom") + f" {columns[piece][token]}"
            off = embedding(place, table)
            here, label = tokens[piece, token].astype(np.float64), labels[piece][token]
            bare = here - off
            scores = [15 * (bare @ w) / (np.linalg.norm(bare) * np.linalg.norm(w)) for w in words]
            entropy = math.log(sum(math.exp(s) for s in scores)) - scores[label]
            alone = here - words[label]  # what is left for the place
            named = [embedding(name, table) for name in ROW_FIRST]
            closeness = [
                15 * (alone @ w) / (np.linalg.norm(alone) * np.linalg.norm(w)) for w in named
            ]
            right = closeness[ROW_FIRST.index(place)]
            entropy += math.log(sum(math.exp(s) for s in closeness)) - right
            gap = bare - words[label]
            weight = 1.0 if label else 0.25
            total += weight * (entropy + gap @ gap / length)
            weights += weight
    found = loss(torch.from_numpy(tokens), mask, (1, 2))
    assert float(found) == pytest.approx(total / weights, rel=1e-4)


def test_tokens_at_their_targets_lose_little():
    table = torch.eye(26, dtype=torch.float64)
    loss = WordLoss(Letters(), table, cells=2).double()
    mask = torch.zeros(4, 4, dtype=torch.uint8)
    mask[:2, :2] = TEXTURE
    target = loss.words[[1, 0, 0, 0]] + loss.places[[0, 2, 6, 8]]
    assert float(loss(target[None], mask, (1, 1))) < 0.2  # names of places share letters
    assert float(loss(target[None].roll(1, 1), mask, (1, 1))) > 1


def test_the_nearest_words_by_loops():
    rng = np.random.default_rng(5)
    table = rng.normal(size=(26, 6))
    loss = WordLoss(Letters(), torch.from_numpy(table), cells=3).double()
    mask = torch.zeros(9, 9, dtype=torch.uint8)
    mask[0:3, 3:9] = SYMBOL
    tokens = rng.normal(size=(1, 9, 6)).astype(np.float32)
    labels = [0, 3, 3, 0, 0, 0, 0, 0, 0]
    words = [embedding(w, table) for w in ("clean", *CATEGORY_WORDS.values())]
    places = [embedding(name, table) for name in ROW_FIRST]

    def nearest(vector: np.ndarray, candidates: list[np.ndarray]) -> int:
        cosines = [
            vector @ one / np.linalg.norm(vector) / np.linalg.norm(one) for one in candidates
        ]
        return int(np.argmax(cosines))

    tokens[0, 1] = words[3] + places[1]
    tokens[0, 8] = words[0] + places[8]
    shown = [nearest(tokens[0, k] - places[k], words) == labels[k] for k in range(9)]
    placed = [nearest(tokens[0, k] - words[labels[k]], places) == k for k in range(9)]
    found = loss.nearest(torch.from_numpy(tokens), mask, (1, 1))
    assert found["category"].tolist() == shown[1:3]
    assert found["clean"].tolist() == [shown[0], *shown[3:]]
    assert found["place"].tolist() == placed
    assert 0 < sum(shown) < 9
    assert 0 < sum(placed) < 9


def test_the_loss_is_that_of_32_bits_in_autocast():
    rng = np.random.default_rng(3)
    loss = WordLoss(Letters(), torch.from_numpy(rng.normal(size=(26, 6))), cells=2)
    tokens = torch.from_numpy(rng.normal(size=(1, 4, 6))).bfloat16()
    mask = torch.zeros(4, 4, dtype=torch.uint8)
    mask[:2, :2] = TEXTURE
    plain = loss(tokens, mask, (1, 1))
    assert plain.dtype == torch.float32
    nearest = loss.nearest(tokens, mask, (1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(tokens, mask, (1, 1)), plain)
        again = loss.nearest(tokens, mask, (1, 1))
    assert all(torch.equal(again[name], right) for name, right in nearest.items())


def module_of(heie, config, **weights):
    config = copy.deepcopy(config)
    config.loss.bce = config.loss.alignment.weight = 0.0
    terms = config.loss.heatmap
    terms.focal = terms.laplace = terms.correlation = terms.score = 0.0
    for name, weight in weights.items():
        setattr(config.loss, name, weight)
    return HeieModule(heie, config).train()


def test_images_that_nobody_marked_teach_no_words(heie, tiny_config):
    module = module_of(heie, tiny_config, words=2.0)
    marked = [example(k, size=size) for k, size in enumerate(((56, 112), (168, 56), (56, 56)))]
    for k, one in enumerate(marked):
        one.mask = torch.zeros(one.target.shape, dtype=torch.uint8)
        one.mask[10 : 30 + 5 * k, 20:50] = TEXTURE << k

    def found(*examples):
        terms, _ = module.losses(collate(examples, heie.processing))
        assert float(terms["loss"].detach()) == pytest.approx(2 * float(terms["words"].detach()))
        return terms["words"]

    each = [float(found(one).detach()) for one in marked]
    assert len(set(each)) == 3
    assert float(found(*marked).detach()) == pytest.approx(sum(each) / 3, rel=1e-5)
    blank = example(3, size=(56, 112))
    assert blank.mask is None
    # a mean over the whole batch, whoever takes part, as of the heatmap losses
    mixed = found(marked[0], blank, marked[1])
    assert float(mixed.detach()) == pytest.approx(sum(each[:2]) / 3, rel=1e-5)
    mixed.backward()
    learning = {
        name: p for name, p in heie.named_parameters() if "projector" in name and p.requires_grad
    }
    assert learning
    assert all(p.grad is not None for p in learning.values())
    assert max(float(p.grad.abs().max()) for p in learning.values()) > 0
    nothing = found(blank)
    assert float(nothing.detach()) == 0
    nothing.backward()  # processes of a distributed run wait for every gradient


def test_figures_of_the_nearest_words_are_means_over_tokens(heie, tiny_config):
    module = module_of(heie, tiny_config, words=1.0).eval()
    examples = [example(k, size=size) for k, size in enumerate(((56, 112), (56, 56), (56, 56)))]
    for k, one in enumerate(examples[:2]):
        one.mask = torch.zeros(one.target.shape, dtype=torch.uint8)
        one.mask[10:30, 20:50] = TEXTURE << k
    right: dict[str, list[bool]] = {}
    for one in examples[:2]:  # nobody marked the third
        batch = collate([one], heie.processing)
        with torch.no_grad():
            tokens = heie(batch.inputs, language=False).image_tokens
        for name, hits in module.words.nearest(tokens, one.mask, batch.inputs.grids[0]).items():
            right.setdefault(f"nearest_{name}", []).extend(hits.tolist())
    with torch.no_grad():
        module.validation_step(collate(examples[:2], heie.processing), 0)
        module.validation_step(collate(examples[2:], heie.processing), 1)
    figures = module.validation_figures()
    for name, hits in right.items():
        assert figures[name] == pytest.approx(sum(hits) / len(hits)), name
    with torch.no_grad():
        module.validation_step(collate(examples[2:], heie.processing), 0)
    assert not any(name.startswith("nearest") for name in module.validation_figures())


def test_words_beside_texts(heie, tiny_config):
    one = example(1, size=(56, 112))
    one.mask = torch.zeros(56, 112, dtype=torch.uint8)
    one.mask[:20, 30:90] = SYMBOL
    batch = collate([one], heie.processing)
    with torch.no_grad():
        words, _ = module_of(heie, tiny_config, words=1.0).losses(batch)
        texts, _ = module_of(heie, tiny_config, text=3.0).losses(batch)
        both, _ = module_of(heie, tiny_config, words=1.0, text=3.0).losses(batch)
    assert float(both["words"]) == pytest.approx(float(words["words"]), rel=1e-5)
    assert float(both["text"]) == pytest.approx(float(texts["text"]), rel=1e-5)
    wanted = float(words["loss"]) + float(texts["loss"])
    assert float(both["loss"]) == pytest.approx(wanted, rel=1e-5)


def test_a_projector_learns_words_without_the_language_model(tmp_path, tiny_base, monkeypatch):
    from transformers.models.qwen2 import modeling_qwen2

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the language model was run")

    options = (
        *("model.image_size=[56,56]", "model.heatmap.tile=56", "mllm.max_new_tokens=12"),
        *("data.demo_size=56", "data.demo_train=8", "data.demo_val=4", "data.demo_test=2"),
        *(f"mllm.base={tiny_base}", f"out={tmp_path}", "train.epochs=6", "data.batch_size=4"),
        "mllm.features=last",
    )
    forward = modeling_qwen2.Qwen2Model.forward
    monkeypatch.setattr(modeling_qwen2.Qwen2Model, "forward", never)
    from artifactnet.vlm.heie import trainer

    def evaluate(*args: object) -> object:
        monkeypatch.setattr(modeling_qwen2.Qwen2Model, "forward", forward)
        return real(*args)

    real = trainer.evaluate_model
    monkeypatch.setattr(trainer, "evaluate_model", evaluate)
    result = train_heie(load("heie_nano_projector", options))
    (table,) = result.run_dir.glob("logs/*/metrics.csv")
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    column = header.index("train/words_epoch")
    figures = [float(row[column]) for row in rows if row[column]]
    assert figures[-1] < 0.5 * figures[0]


def test_words_need_a_projector_that_learns():
    with pytest.raises(ConfigError, match=r"loss\.words.*teaches the projector"):
        load("heie_nano", ["loss.words=1", "mllm.tune=language"])
    with pytest.raises(ConfigError, match=r"loss\.words.*mllm\.base"):
        load("dinov2_align", ["loss.words=1"])
