"""FakeXplained (FakeXplainer, Sec. 3) in the form that its public training code reads: JSON lines.

One line is ``{"images": [PATH], "messages": [{"role", "content"}, ...], "objects": {"ref":
[CAPTION, ...], "bbox": [[x1, y1, x2, y2], ...]}}``. The captions and boxes, in pixels, fill the
placeholders ``<ref-object>`` and ``<bbox>`` of the assistant's text in order; lines of real images
have no ``objects``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.data.converters.common import Conversion, ManifestWriter, parse_foreign_tags
from artifactnet.data.folder_names import split_of
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.regions import clip_regions, parse_caption, parse_corners
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.types import Annotation, ArtifactNetError, Region

SUFFIX = ".jsonl"
PLACEHOLDERS = {"ref": "<ref-object>", "bbox": "<bbox>"}
VERDICTS = ("real", "generated")  # index = label


@dataclass(frozen=True, slots=True)
class FakeXplainRecord:
    """One line.

    Attributes:
        image: path as the line gives it.
        label: 0 real, 1 fake.
        regions: empty for real images.
        tags: None where the text has no ``<tag>``.
        where: ``FILE:LINE``.
    """

    image: str
    label: int
    regions: tuple[Region, ...]
    tags: tuple[str, ...] | None
    where: str


def convert_fakexplain(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "fakexplain",
    generator: str = "fakexplained",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of a ``.jsonl`` file, or of a folder of them (form: see the module's text).

    The split is the last word of a file's name (``..._train``), if it is one. The uid of an image
    is ``NAME/PATH``, its path below the folder without suffix. A fake that EXIF turns is not
    annotated: its boxes may be of either orientation. Arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: `parse_row` refuses a line, a box reaches out of its image, an image is
            listed twice, or see `ManifestWriter`.
    """
    files = sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise ArtifactNetError(f"{source}: no such file, nor a folder with a {SUFFIX} file")
    writer = ManifestWriter(out, name, overwrite, inputs=[images], generator=generator)
    folder = ImageFolder(images)
    for file in files:
        split = split_of(file.stem.rpartition("_")[2])
        for number, text in enumerate(read_text(file).split("\n"), 1):
            if not text.strip():
                continue
            where = f"{file}:{number}"
            record = parse_row(parse_json(text, where), where)
            path, size = writer.find(folder, record.image, where)
            if path is None or size is None:
                continue
            writer.claim(path, where)
            uid = f"{name}/{folder.stem(path)}"
            if record.label == 0:
                writer.lines.append(ManifestLine(path, uid, 0, Annotation.CLEAN, split, "real"))
                continue
            line = ManifestLine(
                path, uid, 1, Annotation.NONE, split, generator, tags=record.tags, where=where
            )
            turned = writer.is_turned(path)
            writer.add_regions(line, None if turned else clip_regions(record.regions, size, where))
    return writer.finish(source, folder.skipped.describe(images))


def parse_row(row: Any, where: str) -> FakeXplainRecord:
    """Check one line (form: see the module's text); ``where`` names it in error messages.

    An image with boxes is a fake. Without any it is what its ``<verdict>`` says if it has
    (empty) ``objects``, and real if it has none.

    Raises:
        ArtifactNetError: the line has another form (the message lists its keys); captions, boxes
            and placeholders differ in number; a box, caption or tag is refused (see
            `artifactnet.data.regions`); or the verdict contradicts ``objects``.
    """
    if not isinstance(row, dict) or not {"images", "messages"} <= row.keys():
        held = f"has the keys {brief(sorted(row))}" if isinstance(row, dict) else f"is {brief(row)}"
        raise ArtifactNetError(
            f"{where}: the line {held}; expected are 'images', 'messages' and, for fakes, 'objects'"
        )
    paths = row["images"]
    if not (isinstance(paths, list) and len(paths) == 1 and isinstance(paths[0], str)) or (
        not paths[0] or "\0" in paths[0]
    ):
        raise ArtifactNetError(f"{where}: 'images' must be a list of one path, not {brief(paths)}")
    text = _assistant(row["messages"], where)
    objects = row.get("objects")
    regions = _regions({"ref": [], "bbox": []} if objects is None else objects, text, where)
    verdict = _verdict(text, where)
    label = 1 if regions else 0 if objects is None else verdict or 0
    if verdict is not None and verdict != label:
        held = "no 'objects'" if objects is None else f"{len(regions)} boxes in 'objects'"
        raise ArtifactNetError(
            f"{where}: the verdict is {VERDICTS[verdict]!r}, but the line has {held}"
        )
    tags = _tags(text, where)
    if tags and label == 0:
        raise ArtifactNetError(
            f"{where}: the line has the tags {', '.join(tags)}, but it is of a real image: it has "
            "no boxes in 'objects' and no verdict 'generated'"
        )
    return FakeXplainRecord(paths[0], label, regions, tags, where)


def _assistant(messages: Any, where: str) -> str:
    """All that the assistant says."""
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
    ):
        raise ArtifactNetError(
            f"{where}: 'messages' must be a list of {{'role', 'content': text}}, not "
            f"{brief(messages)}"
        )
    texts = [message["content"] for message in messages if message.get("role") == "assistant"]
    if not texts:
        raise ArtifactNetError(f"{where}: 'messages' has none of the role 'assistant'")
    return "\n".join(texts)


def _regions(objects: Any, text: str, where: str) -> tuple[Region, ...]:
    if not isinstance(objects, dict) or set(objects) != set(PLACEHOLDERS):
        # another key, as ms-swift's 'bbox_type', would change what the numbers mean
        keys = brief(sorted(objects)) if isinstance(objects, dict) else brief(objects)
        raise ArtifactNetError(f"{where}: 'objects' must have the keys 'ref', 'bbox', not {keys}")
    for key, placeholder in PLACEHOLDERS.items():
        if not isinstance(objects[key], list):
            raise ArtifactNetError(
                f"{where}: objects.{key} must be a list, not {brief(objects[key])}"
            )
        held = text.count(placeholder)
        if held != len(objects[key]):
            raise ArtifactNetError(
                f"{where}: objects.{key} has {len(objects[key])} entries, the assistant's text "
                f"{held} {placeholder}; they must agree"
            )
    if len(objects["ref"]) != len(objects["bbox"]):
        raise ArtifactNetError(
            f"{where}: objects.ref has {len(objects['ref'])} entries, objects.bbox "
            f"{len(objects['bbox'])}; they must agree"
        )
    return tuple(
        Region(
            parse_corners(box, f"{where}: objects.bbox[{number}]"),
            parse_caption(caption, f"{where}: objects.ref[{number}]"),
        )
        for number, (caption, box) in enumerate(zip(objects["ref"], objects["bbox"], strict=True))
    )


def _verdict(text: str, where: str) -> int | None:
    """Label that the text states."""
    word = _element(text, "verdict", where)
    if word is None:
        return None
    if word.strip().lower() not in VERDICTS:
        raise ArtifactNetError(
            f"{where}: <verdict> must hold one of {', '.join(VERDICTS)}, not {brief(word)}"
        )
    return VERDICTS.index(word.strip().lower())


def _tags(text: str, where: str) -> tuple[str, ...] | None:
    held = _element(text, "tag", where)
    if held is None:
        return None
    names = [part.strip() for part in held.replace("\n", ",").split(",") if part.strip()]
    if [name.lower() for name in names] == ["none"]:
        return ()
    return parse_foreign_tags(names, f"{where}: <tag>")


def _element(text: str, name: str, where: str) -> str | None:
    """What stands between ``<NAME>`` and ``</NAME>``; None where there are neither."""
    before, opened, rest = text.partition(f"<{name}>")
    content, closed, after = rest.partition(f"</{name}>")
    others = before + content + after
    if f"<{name}>" in others or f"</{name}>" in others or bool(opened) != bool(closed):
        raise ArtifactNetError(f"{where}: the assistant's text must have one <{name}>...</{name}>")
    return content if opened else None
