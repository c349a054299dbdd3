"""What all converters to a manifest share: storing maps, counting, telling what was left out.

A conversion writes maps first and the manifest last, so a manifest that exists is complete. After
a kill the same command goes on: maps that are already there are not written again.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from artifactnet.data import manifest_format
from artifactnet.data.duplicates import hash_bytes
from artifactnet.data.heatmaps import same_aspect, write_map
from artifactnet.data.images import shown_size
from artifactnet.data.manifest_format import ManifestLine, named_splits
from artifactnet.data.sources.manifest import SUFFIX
from artifactnet.files import write_json
from artifactnet.types import Annotation, ArtifactNetError, UInt8Array


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        manifest: the file written; ``data.root`` of a training.
        counts: images by state, by split, with score, ...
        warnings: what a reader must know; how many were left out, and why.
    """

    manifest: Path
    counts: dict[str, int]
    warnings: tuple[str, ...]


class ManifestWriter:
    """The folder that a conversion writes into, and what it has collected so far."""

    def __init__(
        self,
        folder: Path,
        name: str,
        overwrite: bool,
        *,
        inputs: Iterable[Path] = (),
        generator: str = "fake",
    ) -> None:
        """Check that nothing is in the way.

        Args:
            folder: made where it does not exist; may hold other manifests.
            name: of the manifest ``folder/NAME.jsonl``; maps go to ``folder/heatmaps/NAME`` and
                ``folder/masks/NAME``.
            overwrite: replace a manifest of this name; it goes when the first map is written,
                since it could name maps that are not its own any more.
            inputs: folders that are searched for images or masks; the output lies in none.
            generator: of the fakes.

        Raises:
            ArtifactNetError: the name is no plain file name, there is a manifest of this name, the
                folder lies inside an input, or the generator is ``real``.
        """
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
        self._left_out: dict[str, list[str]] = defaultdict(list)
        self._stored: dict[Path, tuple[str, bytes]] = {}  # whose map it is, digest
        if self.manifest.exists() and not overwrite:
            raise ArtifactNetError(
                f"{self.manifest}: already there; replace it with --overwrite, or give another "
                "--name or --out"
            )

    def leave_out(self, reason: str, what: str) -> None:
        """Note an image, or a part of one, that is not in the manifest."""
        self._left_out[reason].append(what)

    def size(self, path: str, what: str) -> tuple[int, int] | None:
        """Height and width of an image as it is shown; None, noted, where it cannot be read."""
        try:
            height, width, _ = shown_size(path)
        except ArtifactNetError as error:
            self.leave_out("images cannot be read", f"{what}: {error}")
            return None
        return height, width

    def fits(self, heatmap: UInt8Array, image: str, size: tuple[int, int]) -> bool:
        """Whether a heatmap has its image's aspect ratio; noted, where it has not.

        How such a map was fitted to its image is not known, so neither are its places.
        """
        height, width = heatmap.shape
        if same_aspect((height, width), size):
            return True
        self.leave_out(
            "images have another aspect ratio than their heatmap",
            f"{image} ({size[1]}x{size[0]}, heatmap {width}x{height})",
        )
        return False

    def store(self, kind: str, key: str, values: UInt8Array, image: str) -> str:
        """Write a map of an image.

        Args:
            kind: ``heatmaps``, ``masks``, ...: the folder it goes to.
            key: relative path without suffix.
            values: (H, W) uint8.
            image: path of the image.

        Returns:
            its path.

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
            ArtifactNetError: no image is left, or a line is one that no manifest may hold.
            OSError: the disk is full, or the folder cannot be written.
        """
        report = self.folder / f"{self.name}.left_out.json"
        for reason, names in self._left_out.items():
            warnings.append(f"{len(names)} {reason}, e.g. {names[0]}; all are listed in {report}")
        if not self.lines:
            why = warnings[-1].split("; all are listed")[0] if self._left_out else "it lists none"
            raise ArtifactNetError(f"{source}: no image can be used: {why}")
        named_splits(self.lines)  # the check of the reader that looks at all lines together
        write_json(report, dict(self._left_out))
        manifest_format.write_manifest(self.manifest, self.lines)
        return Conversion(self.manifest, self._counts(), tuple(warnings))

    def _counts(self) -> dict[str, int]:
        counts = Counter({"images": len(self.lines)})
        for line in self.lines:
            counts["fake" if line.label else "real"] += 1
            counts["not annotated"] += line.annotation is Annotation.NONE
            counts["clean"] += line.annotation is Annotation.CLEAN
            counts["with a heatmap"] += line.heatmap is not None
            counts["with a mask"] += line.mask is not None
            counts["with a score"] += line.score is not None
            counts["with a text"] += line.text is not None
            counts[line.split or "without a split"] += 1
        return {key: count for key, count in counts.items() if count}


def read_json(path: Path, text: str | None = None, where: str | None = None) -> object:
    """Parse a JSON file, or one line of it.

    Args:
        path: read unless ``text`` is given.
        text: what to parse instead.
        where: what to call it in error messages; the path by default.

    Raises:
        ArtifactNetError: it cannot be read or is no JSON.
    """
    name = where or str(path)
    try:
        return json.loads(path.read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        raise ArtifactNetError(f"{name}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactNetError(f"{name}: not readable as JSON ({error})") from None
