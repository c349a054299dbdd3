"""FakeXplainer's question to a model behind an endpoint."""

import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("openai", reason="needs the extra endpoint")

from chat_server import Reply, serving

from artifactnet import load_endpoint
from artifactnet.cli import main
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.llm.client import Chat, Endpoint, EndpointError, Token
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.fakexplainer import endpoint
from artifactnet.vlm.fakexplainer.answering import CUT_OFF

ANSWER = (
    '<think>\n{"bbox_2d": [98, 49, 295, 197], "label": "hand with six fingers"}\n'
    "<tag>wrong texture</tag>\n</think>\n<verdict>generated</verdict>"
)
IMAGE = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)


def completion(text, tokens=None, **more):
    """The body of an answer; ``tokens``: pairs of a token and {choice: likelihood}."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **more},
        "finish_reason": "stop",
    }
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": choices[token],
                    "top_logprobs": [{"token": c, "logprob": v} for c, v in choices.items()],
                }
                for token, choices in tokens
            ]
        }
    return Reply(raw=json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def split(text, *, word):
    """Tokens of an answer; those of the verdict have ``word`` as choices."""
    at = text.index("<verdict>") + len("<verdict>")
    first = next(iter(word))
    rest = text[at + len(first) :]
    return [(text[:at], {text[:at]: -0.1}), (first, word), (rest, {rest: 0.0})]


def test_likelihoods_of_the_first_token_of_the_verdict():
    tokens = [Token(t, c) for t, c in split(ANSWER, word={"gen": -0.2, "real": -1.7, "x": -9.0})]
    assert endpoint.first_token_probability(tokens) == pytest.approx(0.817574, abs=1e-6)
    both = {"generated": -1.0, "g": -2.0, " real": -1.5}  # two ways to begin one word
    expected = (math.exp(-1) + math.exp(-2)) / (math.exp(-1) + math.exp(-2) + math.exp(-1.5))
    tokens = [Token(t, c) for t, c in split(ANSWER, word=both)]
    assert endpoint.first_token_probability(tokens) == pytest.approx(expected)


def test_a_token_may_reach_from_the_marker_into_the_word():
    tokens = [
        Token("<think></think><verdict", {"<think></think><verdict": 0.0}),
        Token(">real", {">real": -0.5, ">gen": -1.0, "> ": -3.0}),
        Token("</verdict>", {"</verdict>": 0.0}),
    ]
    assert endpoint.first_token_probability(tokens) == pytest.approx(1 / (1 + math.exp(0.5)))


@pytest.mark.parametrize(
    ("choices", "expected"), [({"real": -0.1}, 0.0), ({"gen": -0.1}, 1.0), ({"maybe": -0.1}, None)]
)
def test_a_word_that_is_no_choice_is_impossible(choices, expected):
    first = next(iter(choices))
    tokens = [Token("<verdict>", {}), Token(first, choices)]
    assert endpoint.first_token_probability(tokens) == expected
    assert endpoint.first_token_probability(tokens[:1]) is None
    assert endpoint.first_token_probability([]) is None


def test_an_answer_is_read_with_its_thoughts_and_in_pixels():
    reply = completion(ANSWER, split(ANSWER, word={"generated": -0.2, "real": -1.7}))
    with serving([reply]) as server:
        predictor = load_endpoint(server.url, "m", "qwen2_5_vl")
        found = predictor.predict(IMAGE)
        (request,) = server.requests
    assert found.is_fake
    assert found.probability == pytest.approx(0.817574, abs=1e-6)
    box = (99.5556, 49.7778, 299.6825, 200.1270)  # 504 x 504 to the model
    assert found.regions[0].bbox == pytest.approx(box, abs=1e-4)
    assert found.tags == ("wrong texture",)
    assert found.warnings == ()
    assert request.body["temperature"] == 0
    assert request.body["max_tokens"] == 1024
    (message,) = request.body["messages"]
    picture, text = message["content"]
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        np.testing.assert_array_equal(np.asarray(sent), IMAGE)
    assert "in pixels of the image" in text["text"]


def test_the_system_layout_has_a_system_turn():
    with serving([completion(ANSWER)]) as server:
        load_endpoint(server.url, "m", "internvl", layout="system").predict(IMAGE)
        system, user = server.requests[0].body["messages"]
    assert system["role"] == "system"
    assert "from 0 to 1000" in system["content"]
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]


def test_without_likelihoods_the_verdict_decides_and_a_warning_says_so():
    refusal = Reply("logprobs are not supported", status=400)
    real = "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>"
    with serving([refusal, completion(ANSWER), completion(real)]) as server:
        predictor = load_endpoint(server.url, "m", "qwen3_vl")
        fake, photo = predictor.predict([IMAGE, IMAGE], 1)
        assert ["logprobs" in r.body for r in server.requests] == [True, False, False]
    assert (fake.probability, photo.probability) == (1.0, 0.0)
    assert endpoint.NO_LIKELIHOOD in fake.warnings
    assert endpoint.NO_LIKELIHOOD in photo.warnings


def test_thoughts_that_a_server_took_out_are_put_back():
    thoughts, _, rest = ANSWER.removeprefix("<think>").partition("</think>")
    with serving([completion(rest, reasoning_content=thoughts)]) as server:
        found = load_endpoint(server.url, "m", "internvl").predict(IMAGE)
    assert found.regions[0].caption == "hand with six fingers"


def test_failures_of_single_images_stop_nothing(monkeypatch):
    monkeypatch.setattr("artifactnet.llm.client.RETRIES", 0)

    def plan(request):
        width, _ = Image.open(
            io.BytesIO(
                base64.b64decode(
                    request.body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
                )
            )
        ).size
        if width == 30:
            return Reply("image too small", status=400)
        if width == 40:
            return completion("")
        if width == 50:
            return Reply(ANSWER[:-30], finish="length")
        return Reply(ANSWER)

    images = [ImageInput(str(w), IMAGE[:60, :w]) for w in (20, 30, 40, 50)]
    with serving(plan) as server:
        predictor = load_endpoint(server.url, "m", "internvl")
        found = list(predictor.predict_stream(images))
    assert [type(one) is Failure for one in found] == [False, True, True, False]
    assert "image too small" in found[1].reason
    assert "without a word" in found[2].reason
    assert CUT_OFF in found[3].warnings


def test_a_wrong_key_ends_the_work():
    with serving(lambda request: Reply("no", status=401)) as server:
        predictor = load_endpoint(server.url, "m", "internvl")
        with pytest.raises(EndpointError, match="OPENAI_API_KEY"):
            list(predictor.predict_stream([ImageInput("a", IMAGE)]))


def test_a_server_that_is_gone_ends_the_work():
    with serving(lambda request: Reply(hang_up=True)) as server:
        chat = Chat(Endpoint(server.url, retries=0), "m")
        predictor = endpoint.EndpointPredictor(chat, "internvl")
        images = [ImageInput(str(k), IMAGE) for k in range(20)]
        with pytest.raises(EndpointError, match="5 images in a row"):
            list(predictor.predict_stream(images, batch_size=1))
        assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http://x/v1", "m", "gpt"), "no rule for coordinates of model_type 'gpt'"),
        (("x", "m", "internvl"), "not the URL of an endpoint"),
        (("http://x/v1", " ", "internvl"), "the model's name is empty"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, message):
    with pytest.raises(ArtifactNetError, match=message):
        load_endpoint(*arguments)


def test_predict_and_evaluate_from_the_command_line(tmp_path, monkeypatch, capsys):
    from tiny_fakexplainer import save_images

    monkeypatch.chdir(tmp_path)
    manifest = save_images(tmp_path)
    asked = [0]

    def plan(request):
        asked[0] += 1
        return Reply("nonsense") if asked[0] == 2 else Reply(ANSWER)

    with serving(plan) as server:
        where = ["--vlm-url", server.url, "--vlm-model", "a/b", "--vlm-family", "internvl"]
        photo = str(tmp_path / "test_0_1.png")
        assert main(["predict", photo, "--out", "out", *where]) == 0
        line = json.loads(Path("out/predictions.jsonl").read_text())
        assert line["regions"][0]["caption"] == "hand with six fingers"
        code = main(["evaluate", f"data.root={manifest}", "data.batch_size=1", *where])
        assert code == 0, capsys.readouterr().err
        together = []
        stream = endpoint.EndpointPredictor.predict_stream

        def watched(self, images, batch_size=None, **options):
            together.append(batch_size)
            return stream(self, images, batch_size, **options)

        monkeypatch.setattr(endpoint.EndpointPredictor, "predict_stream", watched)
        assert main(["evaluate", f"data.root={manifest}", "name=again", *where]) == 0
        assert together == [8]  # requests at a time
        (page,) = Path("runs/evaluations").glob("a-b-*/results.json")
        assert main(["predict", photo, "--out", "out", *where[:4]]) == 2
        assert "come together" in capsys.readouterr().err
        assert main(["evaluate", "runs/x", *where]) == 2
        for option in (["--device", "cpu"], ["--threads", "2"], ["--model", "x"]):
            assert main(["predict", photo, "--out", "out", *where, *option]) == 2
            assert "asks a server" in capsys.readouterr().err
    results = json.loads(page.read_text())
    row = results["fakexplainer"]["all"]
    assert results["model"]["base"] == "a/b"
    # the fakes are called generated; of the photographs one has no verdict, one is called generated
    assert (row["images"], row["accuracy"], row["unparsable"]) == (4, 0.5, 1)


def test_a_server_that_refuses_everything_makes_no_table(tmp_path, monkeypatch, capsys):
    from tiny_fakexplainer import save_images

    monkeypatch.chdir(tmp_path)
    manifest = save_images(tmp_path)
    with serving(lambda request: Reply("no images", status=400)) as server:
        where = ["--vlm-url", server.url, "--vlm-model", "m", "--vlm-family", "internvl"]
        assert main(["evaluate", f"data.root={manifest}", *where]) == 2
    (answers,) = Path("runs").rglob("answers.jsonl")
    assert f"none of 4 images has an answer; {answers} says why" in capsys.readouterr().err
    assert "no images" in json.loads(answers.read_text().splitlines()[0])["problem"]
    assert not list(Path("runs").rglob("results.json"))
