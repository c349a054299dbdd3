"""Questions about images: how sure a local model is of Yes, batches, endpoints, the log."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("peft", reason="needs the extra mllm")

from artifactnet.config import MllmConfig  # noqa: E402
from artifactnet.llm.client import EndpointError, RefusedError, UnansweredError  # noqa: E402
from artifactnet.types import ArtifactNetError  # noqa: E402
from artifactnet.vlm import questions as questions_module  # noqa: E402
from artifactnet.vlm.first_words import FirstWords  # noqa: E402
from artifactnet.vlm.image_chat import load_image_chat, question_messages  # noqa: E402
from artifactnet.vlm.question_log import LoggedQuestion, answer_questions  # noqa: E402
from artifactnet.vlm.questions import (  # noqa: E402
    Answerer,
    EndpointAnswerer,
    ImageQuestion,
    Written,
    load_answerer,
    yes_no_tokens,
    yes_probability,
)

CORPUS = (*tiny_mllm.GRAMMAR, *["Is it real ? Answer with Yes or No. none yes no YES NO"] * 2)
QUESTION = "Is it real ? Answer with Yes or No."


def test_worked_example_of_the_probability():
    logits = torch.tensor([[0.0, 2.0, 1.0, 1.5], [0.0, 500.0, 400.0, -500.0]])
    found = yes_probability(logits, [1, 2], [3])
    assert found.tolist() == [pytest.approx(0.692804, abs=1e-6), 1.0]
    by_hand = math.exp(2.0) + math.exp(1.0)
    assert found[0].item() == pytest.approx(by_hand / (by_hand + math.exp(1.5)), abs=1e-6)


@pytest.fixture(scope="module", params=["qwen", "internvl"])
def model(request, tmp_path_factory):
    """A random model of a family, ready to answer."""
    save = {"qwen": tiny_mllm.save_qwen, "internvl": tiny_mllm.save_base}[request.param]
    folder = save(tmp_path_factory.mktemp(request.param), corpus=CORPUS)
    return load_answerer(folder, "cpu", max_new_tokens=6)


def test_a_batch_answers_as_single_questions_do(model):
    """Prompts of two lengths about images of two sizes: the shorter ones are padded."""
    asked = [
        ImageQuestion(tiny_mllm.random_image(112, 84), QUESTION, yes_no=True),
        ImageQuestion(tiny_mllm.random_image(56, 140), "Is it real ? " + QUESTION, yes_no=True),
        ImageQuestion(tiny_mllm.random_image(84, 84), "Yes or No.", yes_no=True),
    ]
    together = model.ask(asked)
    for question, found in zip(asked, together, strict=True):
        (alone,) = model.ask([question])
        assert found.yes == pytest.approx(alone.yes, abs=1e-5)
        assert found.text == alone.text
        assert 0 < found.yes < 1
    assert len({round(found.yes, 6) for found in together}) == 3


def test_the_probability_is_that_of_the_first_token(model):
    """Without a cache, without `generate`, in float64."""
    question = ImageQuestion(tiny_mllm.random_image(112, 84), QUESTION, yes_no=True)
    chat = model.chat
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = chat.render([{"role": "user", "content": content}])
    with torch.inference_mode():
        logits = model.model(**chat.encode_chats([question.pixels], [text])).logits[0, -1].double()
    tokenizer = chat.processor.tokenizer
    words = {k: tokenizer.decode([k]) for k in tokenizer.get_vocab().values()}
    yes = [k for k, word in words.items() if word in ("Yes", "yes", "YES", " Yes", " yes")]
    no = [k for k, word in words.items() if word in ("No", "no", "NO", " No", " no")]
    assert yes_no_tokens(chat) == (sorted(yes), sorted(no))
    mine = sum(math.exp(logits[k]) for k in yes)
    theirs = sum(math.exp(logits[k]) for k in no)
    (found,) = model.ask([question])
    assert found.yes == pytest.approx(mine / (mine + theirs), abs=1e-5)


def test_long_answers_are_cut_off(model):
    (found,) = model.ask([ImageQuestion(tiny_mllm.random_image(84, 84), QUESTION)])
    assert found.yes is None
    assert found.cut_off
    assert found.text


def test_yes_and_no_are_cut_off_where_they_have_no_end(model, monkeypatch):
    """Two answers of three tokens, of which one ends."""
    chat, word = model.chat, model.chat.tokenize("Yes")[0]
    ends = [[word, chat.end_id, chat.pad_id], [word, word, word]]

    def written(chat, model, inputs, limit, *, logits):
        found = torch.cat([inputs["input_ids"], torch.tensor(ends)], 1)
        return SimpleNamespace(sequences=found, logits=[torch.zeros(2, model.vocab_size)])

    monkeypatch.setattr(questions_module, "generate_answers", written)
    monkeypatch.setattr(type(model.model), "vocab_size", 10_000, raising=False)
    image = tiny_mllm.random_image(84, 84)
    found = model.ask([ImageQuestion(image, QUESTION, yes_no=True)] * 2)
    assert [one.cut_off for one in found] == [False, True]


def test_a_question_cannot_leave_the_chat(model):
    end = model.chat.processor.tokenizer.eos_token
    with pytest.raises(ArtifactNetError, match="the question: holds .* a control word"):
        model.ask([ImageQuestion(tiny_mllm.random_image(84, 84), f"a cat{end}")])


def test_an_image_that_is_too_narrow_is_one_question_without_an_answer(model, tmp_path):
    """Qwen takes no image of an aspect above 200; InternVL cuts it into tiles."""
    narrow, good = np.zeros((3, 603, 3), np.uint8), tiny_mllm.random_image(84, 84)
    images = [good, narrow, good]

    def asked():
        for k, image in enumerate(images):
            yield LoggedQuestion(f"q{k}", {}, lambda image=image: ImageQuestion(image, QUESTION))

    problems = answer_questions(tmp_path / "a.jsonl", asked(), model, {})
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    if model.chat.family == "qwen2_5_vl":
        assert len(lines) == 2
        assert len(problems) == 1
        assert problems[0].startswith("q1: an image of 603x3 pixels is too narrow")
        with pytest.raises(ArtifactNetError, match="603x3 pixels is too narrow"):
            model.ask([ImageQuestion(narrow, QUESTION)])
    else:
        assert (len(lines), problems) == (3, [])


@pytest.mark.parametrize(
    ("save", "space"), [(tiny_mllm.save_qwen, (112, 84)), (tiny_mllm.save_qwen3, (1000, 1000))]
)
def test_every_qwen_names_an_image_that_is_too_narrow(tmp_path, save, space):
    """Also those whose coordinates are no pixels."""
    base = save(tmp_path)
    chat, narrow = load_image_chat(MllmConfig(base=str(base))), np.zeros((3, 603, 3), np.uint8)
    assert chat.input_size((112, 84)) == space
    with pytest.raises(ValueError, match="aspect ratio"):
        chat.encode_chats([narrow], [chat.render(question_messages("?"))])
    with pytest.raises(ArtifactNetError, match="603x3 pixels is too narrow"):
        chat.input_size((603, 3))
    with pytest.raises(ArtifactNetError, match="603x3 pixels is too narrow"):
        FirstWords(str(base)).logits(narrow, "?", ("Good", "Bad"))


def test_a_tokenizer_without_the_words(tmp_path):
    folder = tiny_mllm.save_qwen(tmp_path, corpus=("only letters of this",) * 2)
    with pytest.raises(ArtifactNetError, match="no single token for"):
        yes_no_tokens(load_answerer(folder, "cpu", 4).chat)


BLACK = np.zeros((6, 8, 3), np.uint8)


class Told(Answerer):
    """Answers with the question's text; fails on some, or stops after some."""

    name, batch_size, counts_pixels = "told", 2, False

    def __init__(self, silent=None, stop_after=None, mark="a"):
        self.silent, self.left, self.mark, self.asked = silent or {}, stop_after, mark, []

    def input_size(self, image_size):
        return 1000, 1000

    def fingerprint(self):
        return self.mark

    def ask(self, questions):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.asked += [question.text for question in questions]
        return [
            Written(None, problem=self.silent[q.text])
            if q.text in self.silent
            else Written(f"to {q.text}")
            for q in questions
        ]


def questions(count):
    for k in range(count):
        yield LoggedQuestion(f"q{k}", {"n": k}, lambda k=k: ImageQuestion(BLACK, str(k)))


def test_answers_go_on_after_a_stop_with_the_same_bytes(tmp_path):
    whole = tmp_path / "whole" / "a.jsonl"
    assert answer_questions(whole, questions(7), Told(), {}) == []
    part = tmp_path / "part" / "a.jsonl"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            answer_questions(part, questions(7), Told(stop_after=1), {})
    assert not part.exists()
    last = Told()
    assert answer_questions(part, questions(7), last, {}) == []
    assert last.asked == ["4", "5", "6"]
    assert part.read_bytes() == whole.read_bytes()
    again = Told()
    answer_questions(part, questions(7), again, {})
    assert again.asked == []
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert rows[3] == {"path": "q3", "n": 3, "answer": "to 3"}


def test_what_was_not_answered_is_asked_again(tmp_path):
    path = tmp_path / "a.jsonl"
    silent = {"1": ArtifactNetError("busy")}
    assert answer_questions(path, questions(4), Told(silent), {}) == ["q1: busy"]
    assert len(path.read_text().splitlines()) == 3
    last = Told()
    assert answer_questions(path, questions(4), last, {}) == []
    assert last.asked == ["1"]
    rows = [json.loads(line)["n"] for line in path.read_text().splitlines()]
    assert rows == [0, 1, 2, 3]


def failing(error, *numbers):
    return Told({str(k): error(f"no {k}") for k in numbers})


@pytest.mark.parametrize(
    ("error", "count", "said"),
    [
        (RefusedError, 3, r"no 2; the server has refused every request so far"),
        (UnansweredError, 5, r"no 4 \(5 questions in a row\); all answers so far are in"),
    ],
)
def test_a_server_that_answers_nothing_ends_the_work(tmp_path, error, count, said):
    answerer = failing(error, *range(40))
    with pytest.raises(EndpointError, match=said):
        answer_questions(tmp_path / "a.jsonl", questions(40), answerer, {})
    assert len(answerer.asked) <= count + 1  # two at a time
    # fewer questions than that: no table of zeros either
    with pytest.raises(ArtifactNetError, match="none of 2 questions has an answer, e.g. q0: no 0"):
        answer_questions(tmp_path / "a.jsonl", questions(2), failing(error, 0, 1), {})
    assert not (tmp_path / "a.jsonl").exists()


def test_what_was_answered_before_a_server_went_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(EndpointError, match="in a row"):
        # 6 comes with 7, the fifth in a row
        answer_questions(path, questions(20), failing(UnansweredError, 1, 2, 3, 4, 5, 7), {}, 8)
    last = Told()
    answer_questions(path, questions(8), last, {})
    assert last.asked == ["1", "2", "3", "4", "5", "7"]


def test_refusals_of_single_questions_end_nothing_once_any_was_answered(tmp_path):
    path = tmp_path / "a.jsonl"
    refused = failing(RefusedError, 1, 2, 3, 4, 5)
    assert len(answer_questions(path, questions(6), refused, {})) == 5
    # all that is left is refused again, by a server that has answered before
    assert len(answer_questions(path, questions(6), refused, {})) == 5
    assert len(path.read_text().splitlines()) == 1


def test_the_size_in_which_boxes_are_written_stands_beside_the_answer(tmp_path):
    def asked():
        yield LoggedQuestion("a", {"n": 1}, lambda: ImageQuestion(BLACK, "?"), boxes=True)

    answer_questions(tmp_path / "a.jsonl", asked(), Told(), {})
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        **{"path": "a", "n": 1, "input_size": [1000, 1000], "answer": "to ?"}
    }


def test_answers_of_another_model_are_not_continued(tmp_path):
    path = tmp_path / "a.jsonl"
    answer_questions(path, questions(2), Told(), {"split": "test"})
    with pytest.raises(ArtifactNetError, match="model='a', now 'b'.*; choose another folder"):
        answer_questions(path, questions(2), Told(mark="b"), {"split": "test"})
    with pytest.raises(ArtifactNetError, match="split='test', now 'all'"):
        answer_questions(path, questions(2), Told(), {"split": "all"})
    long = {"split": "test", "questions": ["word " * 1000]}
    with pytest.raises(ArtifactNetError) as error:
        answer_questions(path, questions(2), Told(), long)
    assert len(str(error.value)) < 500


def test_an_endpoint(tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    from artifactnet.llm.client import Chat, Endpoint

    monkeypatch.setenv("OPENAI_API_KEY", "key")
    image = tiny_mllm.random_image(84, 112)
    asked = [ImageQuestion(image, text) for text in ("a", "b", "c")]

    def plan(request):
        return {"a": Reply("to a"), "b": Reply(""), "c": Reply("cut", finish="length")}[
            request.text
        ]

    with serving(plan) as server:
        chat = Chat(Endpoint(server.url, "OPENAI_API_KEY"), "big")
        found = EndpointAnswerer(chat, "qwen2_5_vl", 100).ask(asked)
    assert [one.text for one in found] == ["to a", None, "cut"]
    assert "without a word" in str(found[1].problem)
    assert [one.cut_off for one in found] == [False, False, True]
    assert {request.body["max_tokens"] for request in server.requests} == {100}
    model = EndpointAnswerer(chat, "qwen2_5_vl", 100)
    assert model.counts_pixels
    assert model.input_size((112, 84)) == (112, 84)
    assert EndpointAnswerer(chat, None, 100).input_size((112, 84)) == (1000, 1000)
