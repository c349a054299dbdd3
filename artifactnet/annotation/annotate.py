"""Build a data set like Expl-AIGI-Eval: explanations of marked defects (HEIE, Sec. 3.4).

Each image is drawn with its defects circled, analysed freely by a model that sees it, and the
analysis is rewritten as a chain of thought. Next to the output FILE.jsonl are FILE.raw.jsonl, the
log of every answer, which makes a run resumable, and FILE.rejected.jsonl, the images without a
valid answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from artifactnet.annotation import contours, prompts
from artifactnet.annotation.files import OutputFiles, Pair, count_rows, find_pairs, write_rows
from artifactnet.config import MllmConfig
from artifactnet.data.duplicates import hash_bytes
from artifactnet.data.heatmaps import write_map
from artifactnet.data.image_files import Skipped
from artifactnet.data.images import decode_image
from artifactnet.files import atomic_path
from artifactnet.inference.inputs import Failure
from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.ask import Question, ValidAnswer, ask_until_valid, run_concurrently
from artifactnet.llm.client import Chat, RefusedError
from artifactnet.llm.server_watch import ServerWatch
from artifactnet.types import ArtifactNetError

STAGES = ("analysis", "formatting")


@dataclass(slots=True)
class Summary:
    """What became of the images."""

    records: int = 0  # number of images with an explanation, all in ``out``
    out: Path | None = None  # the file, or None if there is nothing to write
    asked: int = 0  # answers requested by this run
    invalid: int = 0  # invalid answers, those of earlier runs included
    # images without a valid answer, with the reason
    rejected: list[Failure] = field(default_factory=list)
    # images that could not be used, or got no answer
    failures: list[Failure] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def annotate_folder(
    images: Path,
    masks: Path,
    out: Path,
    analyst: Chat,
    formatter: Chat | None = None,
    *,
    attempts: int = 3,
    workers: int = 1,
    bit_fields: bool = False,
    pictures: Path | None = None,
    report: Callable[[str, str], None] | None = None,
) -> Summary:
    """Let models explain the marked defects of images; resumes where an earlier run stopped.

    Args:
        images: folder, searched recursively.
        masks: folder of gray masks or heatmaps; see `find_pairs` and `contours.read_region`.
        out: file of Expl-AIGI-Eval records to write, ending in ``.jsonl``.
        analyst: model that sees the images and analyses them freely.
        formatter: model that rewrites the analysis in the standard form; the analyst by default.
        attempts: maximum number of answers per image and stage, earlier runs included.
        workers: images processed at the same time.
        bit_fields: masks are bit fields of categories (see `artifactnet.taxonomy`); heatmaps of
            them are written to the folder ``FILE_heatmaps``.
        pictures: folder to keep the images with red lines in.
        report: called with an image's name and what became of it.

    Raises:
        ArtifactNetError: a folder, the output or the endpoint is unusable, or the server is gone.
            All answers so far are kept, and finished images are in ``out``, unless that holds more
            of an earlier run; the message says which. The same holds for KeyboardInterrupt.
        OSError: the disk is full, or the like.
    """
    files = OutputFiles(out)
    files.check((images, masks), pictures, bit_fields)
    skipped = Skipped()
    pairs, failures = find_pairs(images, masks, skipped)
    summary = Summary(failures=failures)
    results: list[_Result] = []
    with AnswerLog(files.raw) as log:
        summary.warnings = (*skipped.describe(f"{images}, {masks}"), *log.warnings)
        chats = {"analysis": analyst, "formatting": formatter or analyst}
        job = _Job(chats, log, attempts, bit_fields, files, pictures)
        try:
            _annotate_all(
                pairs, job, workers, summary, results, report or (lambda name, what: None)
            )
        except (ArtifactNetError, KeyboardInterrupt) as error:
            note = _write_unfinished(files, results)
            error.args = ("; ".join(filter(None, (str(error), note))),)
            raise
    summary.asked = log.added
    _write(files, results, summary)
    return summary


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for all images."""

    chats: dict[str, Chat]  # by stage
    log: AnswerLog
    attempts: int
    bit_fields: bool
    files: OutputFiles
    pictures: Path | None


@dataclass(frozen=True, slots=True)
class _Result:
    """The outcome of one image."""

    record: dict[str, Any]  # its line of the output, or of the rejected images
    reason: str | None  # why it was rejected; None if it was not
    asked: int  # answers requested just now
    invalid: int  # invalid answers, earlier ones included
    refused: bool = False  # the server refused the request


def _annotate_all(
    pairs: list[Pair],
    job: _Job,
    workers: int,
    summary: Summary,
    results: list[_Result],
    report: Callable[[str, str], None],
) -> None:
    """Process all images in parallel; failures go to the summary.

    Raises:
        ArtifactNetError: too many images in a row got no answer, or the server refuses everything.
    """
    watch = ServerWatch("images", job.log.path)

    def on_result(pair: Pair, result: _Result | ArtifactNetError) -> None:
        if isinstance(result, ArtifactNetError):
            report(pair.relative, f"failed: {result}")
            summary.failures.append(Failure(pair.image, str(result)))
            watch.failed(result)
            return
        results.append(result)
        if result.reason is not None:
            summary.rejected.append(Failure(pair.image, result.reason))
        report(pair.relative, result.reason or "done")
        if result.asked:  # all others came from the log
            watch.answered()
        if result.refused:
            stage = result.record["stage"]
            watch.refused(str(result.reason), job.log.has_answer(stage, job.chats[stage].model))

    limiters = [chat.limiter for chat in job.chats.values()]
    run_concurrently(pairs, lambda pair: _annotate_one(pair, job), on_result, workers, limiters)


def _annotate_one(pair: Pair, job: _Job) -> _Result:
    """Draw, analyse and format one image, as far as the log does not have the answers."""
    fingerprint = _fingerprint(pair, job.bit_fields)
    drawing = _Drawing(pair, job.bit_fields)
    heatmap = Path(pair.mask)
    if job.bit_fields:  # readers of the output take heatmaps, where 255 is artifact
        heatmap = job.files.heatmaps / f"{pair.name}.png"
        write_map(heatmap, drawing.region.astype("uint8") * 255)
    if job.pictures is not None:
        kept = job.pictures / f"{pair.name}.jpg"
        if not kept.is_file() or kept.read_bytes() != drawing.jpeg:
            with atomic_path(kept) as temporary:
                temporary.write_bytes(drawing.jpeg)
    # between resolved folders: ".." after a link leads elsewhere
    target = heatmap.parent.resolve() / heatmap.name
    relative = PurePath(os.path.relpath(target, job.files.out.parent.resolve())).as_posix()
    record = {"id": pair.name, "image": pair.relative, "heatmap": relative}
    asked = invalid = 0
    text = ""
    for stage in STAGES:
        question = _question(stage, fingerprint, text, drawing, pair.relative)
        chat = job.chats[stage]
        try:
            answer = ask_until_valid(question, chat, job.log, job.attempts)
        except RefusedError as error:
            earlier = job.log.answers(question.log_key(chat.model))
            rejected = _rejected(record, stage, ValidAnswer(None, str(error), earlier))
            return _Result(rejected, str(error), asked, invalid + len(earlier), refused=True)
        asked += answer.asked
        invalid += len(answer.answers) - (answer.result is not None)
        if answer.result is None:
            reason = f"{stage}: {len(answer.answers)} invalid answers; {answer.problem}"
            return _Result(_rejected(record, stage, answer), reason, asked, invalid)
        text = answer.result
    turns = [
        {"from": "human", "value": f"<image>\n{MllmConfig().question}"},
        {"from": "gpt", "value": text},
    ]
    # no score: no person has given one, and the models that wrote the text were not asked
    return _Result({**record, "score": None, "conversations": turns}, None, asked, invalid)


class _Drawing:
    """An image with its defects circled, made only when a model must be asked."""

    def __init__(self, pair: Pair, bit_fields: bool) -> None:
        self._pair = pair
        self._bit_fields = bit_fields

    @cached_property
    def image(self) -> Any:
        return decode_image(self._pair.image, self._pair.image)

    @cached_property
    def region(self) -> contours.Region:
        return contours.read_region(self._pair.mask, self.image.shape[:2], self._bit_fields)

    @cached_property
    def jpeg(self) -> bytes:
        return contours.draw_jpeg(self.image, self.region)


def _question(stage: str, fingerprint: str, text: str, drawing: _Drawing, note: str) -> Question:
    """The question of a stage; ``text`` is the result of the one before."""
    key = {"stage": stage, "image": fingerprint}
    if stage == "analysis":
        version = prompts.prompt_version(prompts.analysis_messages(b""))
        key["prompt"] = f"{version}-{contours.DRAWING}"
        return Question(
            key, lambda: prompts.analysis_messages(drawing.jpeg), prompts.check_analysis, note
        )
    key["prompt"] = prompts.prompt_version(prompts.formatting_messages(""))
    key["input"] = hash_bytes(text.encode()).hex()
    return Question(key, lambda: prompts.formatting_messages(text), prompts.check_formatted, note)


def _fingerprint(pair: Pair, bit_fields: bool) -> str:
    """Of image and mask as files, so that a finished image need not be decoded."""
    parts = [b"bit field" if bit_fields else b"gray"]
    for path in (pair.image, pair.mask):
        try:
            parts.append(hash_bytes(Path(path).read_bytes()))
        except OSError as error:
            raise ArtifactNetError(f"{path}: cannot be read ({error.strerror})") from None
    return hash_bytes(b"".join(parts)).hex()


def _rejected(record: dict[str, Any], stage: str, answer: ValidAnswer) -> dict[str, Any]:
    answers = [asdict(one) for one in answer.answers]
    return {**record, "stage": stage, "reason": answer.problem, "answers": answers}


def _write(files: OutputFiles, results: list[_Result], summary: Summary) -> None:
    """Write finished and rejected images, and count them."""
    finished = [result.record for result in results if result.reason is None]
    rejected = [result.record for result in results if result.reason is not None]
    summary.records = len(finished)
    summary.invalid = sum(result.invalid for result in results)
    if finished:
        write_rows(files.out, finished)
        summary.out = files.out
    elif files.out.exists():
        summary.warnings += (f"{files.out}: from an earlier run; this one explained no image",)
    if rejected:
        write_rows(files.rejected, rejected)
    else:
        files.rejected.unlink(missing_ok=True)  # of an earlier run


def _write_unfinished(files: OutputFiles, results: list[_Result]) -> str:
    """Write what an aborted run has finished, unless an earlier one got further; say which."""
    finished = [result.record for result in results if result.reason is None]
    before = count_rows(files.out)
    if before > len(finished):
        return (
            f"{files.out}: kept from an earlier run with {before} images; this one got to "
            f"{len(finished)}"
        )
    if not finished:
        return ""
    write_rows(files.out, finished)
    return f"{files.out}: holds the {len(finished)} images explained so far"
