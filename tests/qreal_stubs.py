"""What `qreal annotate` asks: a polite server, a detector and a scorer without any model."""

import hashlib
import json
import re

import numpy as np
from chat_server import ChatServer, Reply, Request, Time
from PIL import Image

from artifactnet.llm.client import Chat, Endpoint, RateLimiter

NO_PROBLEM = {
    "realism_1": "Yes",
    "realism_2": "Yes",
    "plausibility_1": "No",
    "plausibility_2": "No",
    "plausibility_3": "No",
    "plausibility_4": "No",
}


def save_images(folder, count=3, size=(160, 200)):
    """``count`` images of noise, which differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


def stage_of(request: Request) -> str:
    return "answers" if "Answer six questions" in request.text else "entities"


def label_of(request: Request) -> str:
    return json.loads(request.text[request.text.rindex("\n") :])["label"]


def polite(request: Request) -> Reply:
    """Sees a violin, an old man and a cat; the man has a problem of both kinds."""
    first = request.body["messages"][0]
    text = "".join(part.get("text", "") for part in first["content"])
    if "Answer six questions" not in text:
        return Reply('["violin", "old man", "cat"]')
    label = json.loads(text[text.rindex("\n") :])["label"]
    row = {"answers": NO_PROBLEM, "realism": None, "plausibility": None}
    if label == "old man":
        bad = {"realism_2": "No", "plausibility_1": "Yes"}
        row = {"answers": {**NO_PROBLEM, **bad}, "realism": "The skin looks like wax."}
        row["parts"] = {"limbs": "A third arm.", "hands": "Six fingers."}
    elif label == "violin":
        row["answers"] = {**NO_PROBLEM, "plausibility_2": "Yes"}
        row["plausibility"] = "It has five strings and no bow."
    return Reply(json.dumps(row))


class StubDetector:
    """Boxes that follow from name and image."""

    identity = "stub"

    def __init__(self, boxes=None):
        self.boxes, self.asked = boxes, []

    def detect(self, image, name):
        self.asked.append(name)
        if self.boxes is not None:
            return self.boxes[name]
        digest = hashlib.sha256(name.encode() + image[0, 0].tobytes()).digest()
        x, y = digest[0] % 100, digest[1] % 80
        return [[x, y, x + 60.123456, y + 50]], [0.3 + digest[2] / 1000]


class StubScorer:
    """Logits that follow from the crop."""

    identity = "stub"

    def __init__(self):
        self.asked = 0

    def logits(self, image, question, words):
        self.asked += 1
        assert re.search("Excellent, Good, Fair, Poor, Bad", question)
        return [float(value) / 100 for value in image[0, 0].tolist() + image[1, 1].tolist()[:2]]


def chat(server: ChatServer, model="eye", retries=2) -> Chat:
    """A client that never really waits."""
    passing = Time()
    limiter = RateLimiter(0, passing.clock, passing.wait)
    return Chat(Endpoint(server.url, retries=retries, timeout=20), model, limiter, seed=0)
