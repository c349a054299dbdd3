"""One image on its way through the three stages (HEIE Sec. 3.4)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from artifactnet.config import MllmConfig
from artifactnet.data.content import digest
from artifactnet.data.gray import store
from artifactnet.data.images import decode
from artifactnet.files import atomic_path
from artifactnet.mllm import annotation_prompts as prompts
from artifactnet.mllm import contours
from artifactnet.mllm.annotation_pairs import Pair
from artifactnet.mllm.answer_log import AnswerLog
from artifactnet.mllm.asking import Question, Settled, settle
from artifactnet.mllm.chat import Chat, RefusedError
from artifactnet.mllm.messages import Answer
from artifactnet.types import ArtifactNetError

STAGES = ("analysis", "formatting")


@dataclass(frozen=True, slots=True)
class Work:
    """What is the same for all images.

    Attributes:
        analyst: model of stage 2; sees pictures.
        formatter: model of stage 3; may be the same.
        log: every answer.
        attempts: answers per image and stage at most.
        folder: of the output; paths of heatmaps are relative to it.
        bit_fields: whether masks are bit fields of categories.
        heatmaps: where heatmaps of bit fields go.
        pictures: where the pictures with red lines go, or None.
    """

    analyst: Chat
    formatter: Chat
    log: AnswerLog
    attempts: int
    folder: Path
    bit_fields: bool
    heatmaps: Path
    pictures: Path | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image.

    Attributes:
        record: its line of the output, or, of an image that was set aside, of the rejected ones.
        reason: why it was set aside; None for a finished one.
        asked: answers asked for just now.
        invalid: answers of no use, earlier ones included.
        refused: whether the server refused the request.
    """

    record: dict[str, Any]
    reason: str | None
    asked: int
    invalid: int
    refused: bool = False


class _Picture:
    """The drawn image, made when something needs it."""

    def __init__(self, pair: Pair, bit_fields: bool) -> None:
        self._pair = pair
        self._bit_fields = bit_fields

    @cached_property
    def image(self) -> Any:
        return decode(self._pair.image, self._pair.image)

    @cached_property
    def region(self) -> contours.Region:
        return contours.read_region(self._pair.mask, self.image.shape[:2], self._bit_fields)

    @cached_property
    def jpeg(self) -> bytes:
        return contours.picture(self.image, self.region)


def annotate_one(pair: Pair, work: Work) -> Outcome:
    """Draw, analyse and format one image, as far as the log has not got it.

    Raises:
        ArtifactNetError: image or mask cannot be used, or the endpoint gave no answer.
        OSError: the disk is full, or the like.
    """
    content = _content(pair, work.bit_fields)
    picture = _Picture(pair, work.bit_fields)
    heatmap = Path(pair.mask)
    if work.bit_fields:  # whose readers take heatmaps: 255 is artifact
        heatmap = work.heatmaps / f"{pair.name}.png"
        store(heatmap, picture.region.astype("uint8") * 255)
    if work.pictures is not None:
        _keep(work.pictures / f"{pair.name}.jpg", picture)
    # by real folders: ".." after a link leads elsewhere
    real = heatmap.parent.resolve() / heatmap.name
    place = PurePath(os.path.relpath(real, work.folder.resolve())).as_posix()
    record = {"id": pair.name, "image": pair.relative, "heatmap": place}
    asked = invalid = 0
    text = ""
    for stage in STAGES:
        question = _question(stage, content, text, picture, pair)
        chat = work.analyst if stage == "analysis" else work.formatter
        try:
            settled = settle(question, chat, work.log, work.attempts)
        except RefusedError as error:
            earlier = work.log.answers({**question.key, "model": chat.model})
            set_aside = _set_aside(record, stage, Settled(None, str(error), earlier))
            return Outcome(set_aside, str(error), asked, invalid + len(earlier), refused=True)
        asked += settled.asked
        invalid += len(settled.answers) - (settled.result is not None)
        if settled.result is None:
            reason = f"{stage}: {len(settled.answers)} answers of no use; {settled.problem}"
            return Outcome(_set_aside(record, stage, settled), reason, asked, invalid)
        text = settled.result
    human = {"from": "human", "value": f"<image>\n{MllmConfig().question}"}
    talk = [human, {"from": "gpt", "value": text}]
    # no score: nobody has given one, and the models that wrote the text were not asked
    return Outcome({**record, "score": None, "conversations": talk}, None, asked, invalid)


def _question(stage: str, content: str, text: str, picture: _Picture, pair: Pair) -> Question:
    """What is asked in a stage; ``text`` is what the one before has brought."""
    if stage == "analysis":
        wording = prompts.version(prompts.analysis(b"")) + f"-{contours.DRAWING}"
        key = {"stage": stage, "image": content, "prompt": wording}
        return Question(
            key, lambda: prompts.analysis(picture.jpeg), prompts.check_analysis, pair.relative
        )
    key = {
        "stage": stage,
        "image": content,
        "prompt": prompts.version(prompts.formatting("")),
        "input": digest(text.encode()).hex(),
    }
    return Question(key, lambda: prompts.formatting(text), prompts.check_formatted, pair.relative)


def _content(pair: Pair, bit_fields: bool) -> str:
    """Fingerprint of image and mask as files, so that a finished one need not be decoded.

    Raises:
        ArtifactNetError: one cannot be read.
    """
    parts = [b"bit field" if bit_fields else b"gray"]
    for path in (pair.image, pair.mask):
        try:
            parts.append(digest(Path(path).read_bytes()))
        except OSError as error:
            raise ArtifactNetError(f"{path}: cannot be read ({error.strerror})") from None
    return digest(b"".join(parts)).hex()


def _keep(path: Path, picture: _Picture) -> None:
    """Write the picture, unless it is there already."""
    if path.is_file() and path.read_bytes() == picture.jpeg:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture.jpeg)


def _set_aside(record: dict[str, Any], stage: str, settled: Settled) -> dict[str, Any]:
    answers = [_answer_row(answer) for answer in settled.answers]
    return {**record, "stage": stage, "reason": settled.problem, "answers": answers}


def _answer_row(answer: Answer) -> dict[str, str]:
    return {"text": answer.text, "finish": answer.finish}
