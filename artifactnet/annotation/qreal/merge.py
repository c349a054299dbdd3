"""What annotators agree on: majority of their answers, all of their descriptions (Sec. 3.3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artifactnet.annotation.qreal.tables import ANSWERS, TEXTS, Row, read_table
from artifactnet.data.qreal import (
    DIMENSIONS,
    PARTS,
    QUESTIONS,
    QRealEntity,
    has_problem,
    join_parts,
    read_qreal,
    write_qreal,
)
from artifactnet.data.text import brief
from artifactnet.types import ArtifactNetError

VOTES = 3  # annotators of every question
_WORDS = {"yes": True, "no": False}
_Said = Mapping[str, Mapping[str, list[Row]]]  # entity -> question or dimension -> rows


@dataclass(frozen=True, slots=True)
class Merged:
    """What a review has changed."""

    images: int
    entities: int
    changed: int  # answers that people turned around
    verified: bool  # every question has the votes of `VOTES` annotators


def merge_review(
    annotations: Path,
    answers: Sequence[Path],
    texts: Sequence[Path],
    out: Path,
    min_votes: int = VOTES,
) -> Merged:
    """Take the majority of annotators' answers, and their descriptions, for a file of annotations.

    A description is made of the distinct texts of a dimension, in the order of the annotators, with
    blanks between them; texts about a dimension without a problem are left out. Texts about parts
    of a person are joined part by part. What stood in the file before is replaced.

    Args:
        annotations: file of `artifactnet.data.qreal` that was reviewed.
        answers: tables with `ANSWERS`, read one after another.
        texts: tables with `TEXTS`.
        out: file to write; its lines are verified if three annotators answered everything, except
            that an image without entities stays what it was.
        min_votes: `VOTES`: each question needs exactly that many answers. Fewer: at least so many.

    Raises:
        ArtifactNetError: an entity, question or dimension is unknown; an annotator says something
            twice, or describes what he did not judge; a question has too few or too many answers,
            or as many Yes as No; a problem has no description. The message names the rows.
    """
    if not 1 <= min_votes <= VOTES:
        raise ArtifactNetError(f"--min-votes {min_votes}: must be 1 to {VOTES}")
    images = read_qreal(annotations, allow_missing=True, images=False)
    entities = {entity.id: entity for image in images for entity in image.entities}
    votes = [row for path in answers for row in read_table(path, ANSWERS)]
    described = [row for path in texts for row in read_table(path, TEXTS)]
    for row in votes:
        if row.said.lower() not in _WORDS:
            raise ArtifactNetError(f"{row.where}: 'answer' must be Yes or No: {brief(row.said)}")
    order = {name: k for k, name in enumerate(dict.fromkeys(row.annotator for row in votes))}
    given = _group(votes, entities, tuple(QUESTIONS), "question", annotations)
    written = _group(described, entities, (*DIMENSIONS, *PARTS), "dimension", annotations)
    merged = {}
    for name, entity in entities.items():
        by_question = given.get(name, {})
        about = {
            key: sorted(by_question.get(key, ()), key=lambda row: order[row.annotator])
            for key in QUESTIONS
        }
        for key, rows in about.items():
            _check_votes(name, key, rows, min_votes, answers)
        judges = {row.annotator for rows in about.values() for row in rows}
        merged[name] = _merge(entity, about, _sorted(written.get(name, {}), judges, order))
    lines = [
        replace(image, entities=tuple(merged[e.id] for e in image.entities)) for image in images
    ]
    verified = bool(merged) and all(
        len(given) >= VOTES for entity in merged.values() for given in (entity.votes or {}).values()
    )
    # of an image without entities, nobody was asked anything
    write_qreal(out, [replace(one, verified=verified) if one.entities else one for one in lines])
    changed = sum(
        merged[name].answers[key] != entity.answers[key]
        for name, entity in entities.items()
        for key in QUESTIONS
    )
    return Merged(len(lines), len(merged), changed, verified)


def majority(votes: Sequence[bool]) -> bool | None:
    """The answer of more than half of the votes; None for as many Yes as No."""
    yes = sum(votes)
    return None if 2 * yes == len(votes) else 2 * yes > len(votes)


def _group(
    rows: Iterable[Row],
    entities: Mapping[str, QRealEntity],
    known: tuple[str, ...],
    column: str,
    annotations: Path,
) -> _Said:
    """Rows by entity and question or dimension."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.entity not in entities:
            raise ArtifactNetError(
                f"{row.where}: unknown entity {brief(row.entity)}; {annotations} has none of this "
                "id"
            )
        if row.about not in known:
            raise ArtifactNetError(
                f"{row.where}: unknown {column} {brief(row.about)}; known: {', '.join(known)}"
            )
        others = found[row.entity][row.about]
        twice = next((other for other in others if other.annotator == row.annotator), None)
        if twice is not None:
            raise ArtifactNetError(
                f"{row.where}: annotator {brief(row.annotator)} said something about {row.about} "
                f"of entity {brief(row.entity)} in {twice.where} already; remove one row"
            )
        others.append(row)
    return found


def _check_votes(
    name: str, question: str, rows: Sequence[Row], least: int, tables: Sequence[Path]
) -> None:
    places = ", ".join(row.where for row in rows) or ", ".join(map(str, tables))
    what = f"entity {brief(name)}, question {question}"
    if len(rows) < least or (least == VOTES and len(rows) > VOTES):
        wanted = f"{VOTES}" if least == VOTES else f"{least} or more"
        raise ArtifactNetError(
            f"{what}: has the answers of {len(rows)} annotators, not of {wanted} ({places})"
        )
    if majority([_WORDS[row.said.lower()] for row in rows]) is None:
        raise ArtifactNetError(f"{what}: as many annotators say Yes as No ({places}); ask one more")


def _sorted(
    written: Mapping[str, list[Row]], judges: set[str], order: Mapping[str, int]
) -> dict[str, list[Row]]:
    """Texts by dimension or part, in the order of the annotators."""
    for row in (row for rows in written.values() for row in rows):
        if row.annotator not in judges:
            raise ArtifactNetError(
                f"{row.where}: annotator {brief(row.annotator)} has not answered any question "
                f"about entity {brief(row.entity)}"
            )
    return {k: sorted(rows, key=lambda row: order[row.annotator]) for k, rows in written.items()}


def _merge(
    entity: QRealEntity, about: Mapping[str, Sequence[Row]], written: Mapping[str, Sequence[Row]]
) -> QRealEntity:
    votes = {key: tuple(_WORDS[row.said.lower()] for row in rows) for key, rows in about.items()}
    answers = {key: bool(majority(each)) for key, each in votes.items()}
    texts = {
        key: " ".join(dict.fromkeys(row.said for row in rows)) for key, rows in written.items()
    }
    parts = {part: texts.pop(part) for part in PARTS if part in texts}
    if parts and "plausibility" in texts:
        one, other = written["plausibility"][0], written[next(iter(parts))][0]
        raise ArtifactNetError(
            f"entity {brief(entity.id)}: plausibility is described as a whole ({one.where}) and by "
            f"parts ({other.where}); keep one of both"
        )
    if parts:
        texts["plausibility"] = join_parts(parts)
    for dimension in DIMENSIONS:
        if not has_problem(answers, dimension):
            texts.pop(dimension, None)
        elif dimension not in texts:
            places = ", ".join(
                row.where
                for key, rows in about.items()
                for row in rows
                if QUESTIONS[key].dimension == dimension
                and answers[key] == QUESTIONS[key].defect == _WORDS[row.said.lower()]
            )
            raise ArtifactNetError(
                f"entity {brief(entity.id)}: has a problem of {dimension} by the majority "
                f"({places}), but no text describes it"
            )
    if not has_problem(answers, "plausibility"):
        parts = {}
    # an empty one still says that this is a person
    is_person = bool(parts) or (entity.parts is not None and "plausibility" not in texts)
    return replace(
        entity,
        answers=answers,
        realism=texts.get("realism"),
        plausibility=texts.get("plausibility"),
        parts=parts if is_person else None,
        votes=votes,
    )
