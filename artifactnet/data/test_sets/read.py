"""Reading a test set: which layout it has, and its images.

Training data has splits of two classes each. Public test sets have one split, often of one class,
in layouts of their own, so they have readers of their own, over the same records and samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from artifactnet.config import DataConfig
from artifactnet.data.sources.manifest import SUFFIX, ManifestSource, build_manifest_splits
from artifactnet.data.sources.xaigd import build_xaigd_splits
from artifactnet.data.splits import Subset, limit_uids
from artifactnet.data.test_sets import folders, rows
from artifactnet.data.test_sets.base import (
    Reading,
    TestSet,
    join_reals,
    make_test_set,
    truth_stamp,
)
from artifactnet.types import ArtifactNetError

LAYOUTS = {
    "chameleon": "ROOT/{0_real,1_fake} or ROOT/CLASS/{0_real,1_fake}",
    "synthbuster": f"ROOT/GENERATOR/..., generators {', '.join(folders.SYNTHBUSTER)}; no reals",
    "commfor": "ROOT/NAME/{real,fake}/..., or Community Forensics' parquet files of PublicEval",
    "fakeclue": "ROOT/data_json/test.json and ROOT/test/...",
    "gptimage": "Rapidata's parquet files, columns image1, image2, model1, model2; no reals",
    "ffpp": "FaceForensics++ frames: ROOT/{original,METHOD}/VIDEO/FRAME",
    "mmfr": "ROOT/evaluation_sets/GENERATOR/{0_real,1_fake}",
    "xaigd": "X-AIGD: ROOT/data/labeled_test-*.parquet, photographs in ROOT/real or in reals",
    "manifest": "a manifest (*.jsonl, `artifactnet convert` makes one) or a folder of them",
    "folder": "ROOT/{real,fake}/... or ROOT/GENERATOR/{0_real,1_fake}/..., or one of the classes",
}
USES = {"generator": ("gptimage",), "frames": ("ffpp",)}  # option -> layouts it is for


@dataclass(frozen=True)
class TestSetOptions:
    """What the layout of a test set leaves open; what a layout does not use is ignored.

    Attributes:
        reals: folder of photographs. For ``xaigd`` those of its uids, by file stem
            (``data.real_root``); they are added to any other set that has no real images.
        generator: whose images are taken of ``gptimage``, see `rows.read_comparisons`.
        frames: of a video in ``ffpp``, see `folders.read_video_frames`.
        limit: uids that are kept, see `artifactnet.data.splits.limit_uids`; None: all.
    """

    __test__ = False  # or pytest takes it for a class of tests

    reals: Path | None = None
    generator: str | None = None
    frames: int | None = None
    limit: int | None = None


class MissingTestSet(ArtifactNetError):
    """There is nothing at the root of a test set."""


def layout_of(name: str, root: Path) -> str:
    """Layout of a test set: by its name (``synthbuster``, ``Synthbuster-recoded``), else content.

    A ``.jsonl`` file is a manifest, whatever its name.
    """
    if root.suffix == SUFFIX:
        return "manifest"
    for layout in LAYOUTS:
        if name.casefold().split("-")[0] == layout:
            return layout
    if any(any(root.glob(pattern)) for pattern in ("data/labeled_*.parquet", "labeled_*.parquet")):
        return "xaigd"
    return "manifest" if any(root.glob(f"*{SUFFIX}")) else "folder"


def read_test_set(
    name: str, root: str | Path, options: TestSetOptions = TestSetOptions()
) -> TestSet:
    """List the images of a test set; none is decoded.

    Args:
        name: what to call it; may choose the layout, see `layout_of`.
        root: its folder, manifest or parquet file.
        options: what its layout leaves open.

    Raises:
        MissingTestSet: there is nothing at ``root``.
        ArtifactNetError: it has another layout than its name says, or none that is known; the
            message names the known ones.
    """
    root = Path(root)
    if options.limit is not None and options.limit < 1:
        raise ArtifactNetError(f"{name}={root}: limit={options.limit} must be at least 1")
    if not root.exists():
        raise MissingTestSet(f"{name}={root}: no such file or folder")
    layout = layout_of(name, root)
    readers: dict[str, Callable[[], Reading]] = {
        "chameleon": lambda: folders.read_class_folders(root),
        "synthbuster": lambda: folders.read_synthbuster(root),
        "commfor": lambda: rows.read_community_forensics(root),
        "fakeclue": lambda: rows.read_fakeclue(root),
        "gptimage": lambda: rows.read_comparisons(root, options.generator),
        "ffpp": lambda: folders.read_video_frames(root, options.frames),
        "mmfr": lambda: folders.read_mmfr(root),
        "xaigd": lambda: _read_xaigd(root, options.reals),
        "manifest": lambda: _read_manifest(root),
        "folder": lambda: folders.read_class_folders(root),
    }
    try:
        test_set = make_test_set(name, layout, root, readers[layout]())
    except ArtifactNetError as error:
        others = ", ".join(other for other in LAYOUTS if other != layout)
        raise ArtifactNetError(
            f"{name}={root}: {error} (read as {layout}: {LAYOUTS[layout]}; other known layouts: "
            f"{others})"
        ) from error
    if options.reals is not None and test_set.only == "fake":
        found = folders.read_real_folder(options.reals)
        reals = make_test_set(options.reals.name, "folder", options.reals, found)
        test_set = join_reals(test_set, reals)
    if options.limit is not None:
        whole = len(test_set.records)
        test_set = test_set.select(limit_uids(test_set.records, options.limit, seed=0))
        note = f"a sample: {options.limit} uids, {len(test_set.records)} of {whole} images"
        test_set = replace(test_set, warnings=(*test_set.warnings, note))
    return test_set


def _read_xaigd(root: Path, reals: Path | None) -> Reading:
    config = DataConfig(
        name="xaigd", root=str(root), real_root=str(reals) if reals else None, on_error="skip"
    )
    splits = build_xaigd_splits(config, seed=0)
    if "test" not in splits:
        raise ArtifactNetError("no labeled_test shards")
    source = splits["test"]
    return Reading(source, warnings=getattr(source, "warnings", ()))


def _read_manifest(root: Path) -> Reading:
    """``test`` where the lines name splits, else ``val``, else all images."""
    config = DataConfig(name="manifest", root=str(root), val_fraction=0.0, on_error="skip")
    splits = build_manifest_splits(config, seed=0)
    source = next(splits[name] for name in ("test", "val", "train") if name in splits)
    assert isinstance(source, ManifestSource)
    kept, missing = [], []
    for k, line in enumerate(source.lines):
        gone = [
            path
            for path in (line.image, line.mask, line.heatmap)
            if path is not None and not Path(path).is_file()
        ]
        missing += gone
        if not gone:
            kept.append(k)
    left_out = {"images, masks or heatmaps are missing": missing}
    truths = tuple(_manifest_truth(source, k) for k in kept)
    return Reading(Subset(source, kept), truths=truths, warnings=source.warnings, left_out=left_out)


def _manifest_truth(source: ManifestSource, index: int) -> str:
    line = source.lines[index]
    return truth_stamp(source.records[index], (line.mask, line.heatmap), line.regions)
