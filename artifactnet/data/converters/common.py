"""What all converters to a manifest share: storing maps, counting, listing what is left out.

A conversion writes maps first and the manifest last, so a manifest that exists is complete. After
a kill the same command resumes: maps that are already there are not written again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifactnet.data import manifest_format
from artifactnet.data.duplicates import hash_bytes
from artifactnet.data.heatmaps import same_aspect, write_map
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.images import shown_size
from artifactnet.data.manifest_format import ManifestLine, named_splits
from artifactnet.data.regions import parse_tags
from artifactnet.data.sources.manifest import SUFFIX
from artifactnet.files import write_json
from artifactnet.types import Annotation, ArtifactNetError, Region, UInt8Array


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        manifest: the file written; ``data.root`` of a training.
        counts: images by state, by split, with score, ...
        warnings: about the data, and how many images were left out, and why.
    """

    manifest: Path
    counts: dict[str, int]
    warnings: tuple[str, ...]


def hull(points: Iterable[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Smallest box (x1, y1, x2, y2) around some points (x, y); there is at least one."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def parse_foreign_tags(names: list[Any], what: str) -> tuple[str, ...]:
    """`parse_tags` of names in any case, with spaces around them."""
    return parse_tags([n.strip().lower() if isinstance(n, str) else n for n in names], what)


class ManifestWriter:
    """Collects the lines of a manifest, and writes it and its maps into a folder.

    Args:
        folder: made where it does not exist; may hold other manifests.
        name: of ``folder/NAME.jsonl``; maps go to ``folder/heatmaps/NAME`` and
            ``folder/masks/NAME``.
        overwrite: replace a manifest of this name; it is removed when the first map is written,
            since it could name maps that are no longer its own.
        inputs: folders that are searched for images or masks; the output lies in none.
        generator: of the fakes.

    Raises:
        ArtifactNetError: the name is no plain file name, there is a manifest of this name, the
            folder lies inside an input, or the generator is ``real``.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        overwrite: bool,
        *,
        inputs: Iterable[Path] = (),
        generator: str = "fake",
    ) -> None:
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            raise ArtifactNetError(f"name {name!r}: must be a plain file name, without folders")
        if not generator or generator == "real":
            raise ArtifactNetError(
                f"generator {generator!r}: these images are fakes; name what made them"
            )
        for place in inputs:  # or the next run would take the maps of this one for images
            if folder.resolve().is_relative_to(place.resolve()):
                raise ArtifactNetError(
                    f"--out {folder}: lies inside {place}, where its maps would be taken for "
                    "images; give a folder outside of it"
                )
        self.folder = folder
        self.name = name
        self.manifest = folder / f"{name}{SUFFIX}"
        self.lines: list[ManifestLine] = []
        self.claimed: set[str] = set()  # paths of the images that have an entry
        self._left_out: dict[str, list[str]] = defaultdict(list)
        self._stored: dict[Path, tuple[str, bytes]] = {}  # image of the map, hash of the map
        if self.manifest.exists() and not overwrite:
            raise ArtifactNetError(
                f"{self.manifest}: already there; replace it with --overwrite, or give another "
                "--name or --out"
            )

    def leave_out(self, reason: str, what: str) -> None:
        """Note an image, or a part of one, that is not in the manifest."""
        self._left_out[reason].append(what)

    def claim(self, path: str, where: str) -> None:
        """Note that an entry, which ``where`` names, describes an image.

        Raises:
            ArtifactNetError: another entry does already.
        """
        if path in self.claimed:
            raise ArtifactNetError(f"{where}: {path} is annotated twice; keep one of them")
        self.claimed.add(path)

    def is_turned(self, path: str) -> bool:
        """Whether EXIF turns an image, noted: where boxes that others drew in it lie is unknown."""
        turned = shown_size(path)[2]
        if turned:
            self.leave_out(
                "images are turned by EXIF, so where their boxes lie is not known: not annotated",
                path,
            )
        return turned

    def size(self, path: str, what: str) -> tuple[int, int] | None:
        """Height and width of an image as displayed; None, noted, where it cannot be read."""
        try:
            height, width, _ = shown_size(path)
        except ArtifactNetError as error:
            self.leave_out("images cannot be read", f"{what}: {error}")
            return None
        return height, width

    def find(
        self, images: ImageFolder, name: str, what: str
    ) -> tuple[str, tuple[int, int]] | tuple[None, None]:
        """Path and displayed size of an image; None, noted, where it is missing or unreadable."""
        path = images.find(name)
        if path is None:
            self.leave_out(f"images are not in {images.folder}", name)
            return None, None
        size = self.size(path, what)
        return (None, None) if size is None else (path, size)

    def add(
        self,
        line: ManifestLine,
        key: str,
        *,
        size: tuple[int, int] | None = None,
        heatmap: UInt8Array | None = None,
        mask: UInt8Array | None = None,
    ) -> bool:
        """Add the line of an image, and store its maps; returns whether it was added.

        Args:
            line: its annotation becomes ``MASK`` where a map marks something and ``CLEAN`` where
                its maps are all zero; it stays where there is no map.
            key: see `store`.
            size: height and width of the image; needed with a heatmap of another size, which is
                refused, and noted, where its aspect ratio differs: how it was fitted to the image
                is unknown, so its places are too.
            heatmap: (h, w) uint8, 255 = artifact.
            mask: (H, W) uint8 bit field.

        Raises:
            ArtifactNetError: see `store`.
        """
        if heatmap is not None and size is not None:
            height, width = heatmap.shape
            if not same_aspect((height, width), size):
                self.leave_out(
                    "images have another aspect ratio than their heatmap",
                    f"{line.image} ({size[1]}x{size[0]}, heatmap {width}x{height})",
                )
                return False
        maps = {"heatmap": heatmap, "mask": mask}
        given = {kind: values for kind, values in maps.items() if values is not None}
        if given:
            marked = any(values.any() for values in given.values())
            line = replace(line, annotation=Annotation.MASK if marked else Annotation.CLEAN)
            stored = {
                kind: self.store(f"{kind}s", key, values, line.image)
                for kind, values in given.items()
                if marked
            }
            line = replace(line, heatmap=stored.get("heatmap"), mask=stored.get("mask"))
        self.lines.append(line)
        return True

    def add_regions(self, line: ManifestLine, regions: Iterable[Region] | None) -> None:
        """Add the line of an image with its regions, which lie in it (see `clip_region`).

        Its annotation becomes ``MASK`` where there is a region, and ``CLEAN`` where there is none;
        it stays where they are None: not known.
        """
        if regions is not None:
            regions = tuple(regions)
            state = Annotation.MASK if regions else Annotation.CLEAN
            line = replace(line, regions=regions, annotation=state)
        self.lines.append(line)

    def store(self, kind: str, key: str, values: UInt8Array, image: str) -> str:
        """Write an (H, W) uint8 map of an image to ``folder/KIND/NAME/KEY.png``; returns the path.

        Raises:
            ArtifactNetError: another image, or another map of this one, has this key.
        """
        path = self.folder / kind / self.name / f"{key}.png"
        content = hash_bytes(f"{values.shape}".encode() + values.tobytes())
        first, before = self._stored.setdefault(path, (image, content))
        if first != image:
            raise ArtifactNetError(f"{image}: its map {path} is that of {first}; rename one image")
        if before != content:
            raise ArtifactNetError(f"{image}: two different maps for {path}; keep one of them")
        self.manifest.unlink(missing_ok=True)
        write_map(path, values)
        return str(path)

    def finish(self, source: Path, warnings: list[str]) -> Conversion:
        """Write the list of what was left out, then the manifest.

        Raises:
            ArtifactNetError: no image can be used, or a line is invalid.
            OSError: the disk is full, or the folder cannot be written.
        """
        report = self.folder / f"{self.name}.left_out.json"
        for reason, names in self._left_out.items():
            example = f"{names[0]:.300}"
            warnings.append(f"{len(names)} {reason}, e.g. {example}; all are listed in {report}")
        if not self.lines:
            why = warnings[-1].split("; all are listed")[0] if self._left_out else "it lists none"
            raise ArtifactNetError(f"{source}: no image can be used: {why}")
        named_splits(self.lines)  # the check of the reader that looks at all lines together
        write_json(report, dict(self._left_out))
        manifest_format.write_manifest(self.manifest, self.lines)
        counts = Counter({"images": len(self.lines)})
        for line in self.lines:
            counts["fake" if line.label else "real"] += 1
            counts["not annotated"] += line.annotation is Annotation.NONE
            counts["clean"] += line.annotation is Annotation.CLEAN
            counts["with a heatmap"] += line.heatmap is not None
            counts["with a mask"] += line.mask is not None
            counts["with a score"] += line.score is not None
            counts["with a text"] += line.text is not None
            counts["with regions"] += bool(line.regions)
            counts["with tags"] += bool(line.tags)
            counts[line.split or "without a split"] += 1
        held = {key: count for key, count in counts.items() if count}
        return Conversion(self.manifest, held, tuple(warnings))
