"""Images in folders: ``real/`` and ``fake/``, with optional ``masks/`` beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from artifactnet.config import DataConfig
from artifactnet.data import splits as splitting
from artifactnet.data.duplicates import find_identical_files
from artifactnet.data.folder_names import SPLITS
from artifactnet.data.image_folders import FolderImage, find_images, find_repeated_stems
from artifactnet.data.images import decode_image
from artifactnet.data.mask_levels import parse_mapping
from artifactnet.data.masks import read_mask
from artifactnet.data.sources.base import Source, Splits
from artifactnet.types import ArtifactNetError, Record, Sample


class FolderSource:
    """Images of one split, each a file of its own."""

    def __init__(
        self,
        items: list[FolderImage],
        warnings: tuple[str, ...] = (),
        levels: int | None = None,
        mask_levels: Mapping[str, str] | None = None,
    ) -> None:
        self.records: list[Record] = [item.record for item in items]
        self._masks = [item.mask for item in items]
        self.warnings = warnings
        self._levels = levels
        self._mapping = parse_mapping(mask_levels or {})

    def load(self, index: int) -> Sample:
        """See `Source.load`."""
        record = self.records[index]
        image = decode_image(record.location, record.location, self._levels)
        path = self._masks[index]
        mask = (
            None
            if path is None
            else (read_mask(path, image.shape[:2], record.location, self._mapping))
        )
        return Sample(record, image, mask)


def build_folder_splits(config: DataConfig, seed: int, *, one_class: bool = False) -> Splits:
    """List the images below ``config.root`` and divide them into splits.

    A fake with a mask is annotated (`Annotation.MASK`), one without is not (`Annotation.NONE`). The
    uid is the file stem, so a photograph and the fakes made from it stay together. Without
    ``val/``, a share ``config.val_fraction`` of the training uids becomes the validation split;
    without any split folder, another such share becomes the test split. Byte-identical files count
    as one uid where the splits are drawn here. ``generators`` and ``limit`` are used too.

    ``one_class`` allows splits that lack a class, for an evaluation.

    Raises:
        ArtifactNetError: see `artifactnet.data.image_folders.find_images`.
    """
    if config.root is None:
        raise ArtifactNetError("data.root is not set; name the folder that holds real/ and fake/")
    root = Path(config.root)
    if not 0 <= config.val_fraction < 0.5:
        raise ArtifactNetError(f"data.val_fraction={config.val_fraction}: must be in [0, 0.5)")
    items, warnings = find_images(root, one_class=one_class)
    keep = splitting.select_generators([item.record for item in items], config.generators, root)
    items = [item for item in items if item.record.generator in keep]
    if any(item.split is None for item in items):
        parts = _divide(items, SPLITS, config.val_fraction, seed)
    else:
        # Many public sets number their files anew in every folder, so a stem in two of them may or
        # may not be the same picture: they count as different, with a warning.
        repeated, shared = find_repeated_stems(items)
        warnings += shared
        for k, item in enumerate(items):
            if item.record.uid in repeated:
                record = replace(item.record, uid=f"{item.split}/{item.record.uid}")
                items[k] = replace(item, record=record)
        parts = {split: [item for item in items if item.split == split] for split in SPLITS}
        if parts["train"] and not parts["val"]:
            parts |= _divide(parts["train"], ("train", "val"), config.val_fraction, seed)
    result: dict[str, Source] = {}
    for split, chosen in parts.items():
        if chosen:
            kept = splitting.limit_uids([item.record for item in chosen], config.limit, seed)
            used = [chosen[k] for k in kept]
            result[split] = FolderSource(used, tuple(warnings), config.levels, config.mask_levels)
    return result


def _divide(
    items: list[FolderImage], names: tuple[str, ...], fraction: float, seed: int
) -> dict[str, list[FolderImage]]:
    """Draw splits by uid; uids that share a byte-identical file stay together."""
    same = find_identical_files([item.record.location for item in items])
    groups = [{items[index].record.uid for index in indices} for indices in same]
    leaders = splitting.link_uids((item.record.uid for item in items), groups)
    led = [replace(item.record, uid=leaders[item.record.uid]) for item in items]
    others = len(names) - 1
    shares = {names[0]: 1 - others * fraction} | dict.fromkeys(names[1:], fraction)
    home = splitting.draw_splits(led, shares, seed)
    result: dict[str, list[FolderImage]] = {name: [] for name in names}
    for item, record in zip(items, led, strict=True):
        result[home[record.uid]].append(item)
    return result
