"""The embedded demo data as files and a manifest, so that it can be mixed with other data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.sources import demo
from artifactnet.files import atomic_path


def convert_demo_data(
    config: DataConfig, out: Path, *, name: str = "demo", overwrite: bool = False
) -> Conversion:
    """Write images, masks, heatmaps, scores, tags and texts of the demo data, and their manifest.

    The ``demo_*`` keys of the config say which images; other arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: a packaged photograph is missing, or the manifest exists.
    """
    writer = ManifestWriter(out, name, overwrite)
    for split, source in demo.build_demo_splits(config, seed=0).items():
        assert isinstance(source, demo.DemoSource)
        for index, record in enumerate(source.records):
            key = f"{split}/{record.uid}-{'fake' if record.label else 'real'}"
            path = out / "images" / name / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(source.encoded(index))
            sample = source.load(index)
            heatmap = None
            if sample.heatmap is not None:
                heatmap = np.round(sample.heatmap * 255).astype(np.uint8)
            known = record.uid, record.label, record.annotation, split, record.generator
            line = ManifestLine(
                str(path), *known, score=sample.score, categories=record.categories,
                text=sample.text, tags=sample.tags,
            )  # fmt: skip
            writer.add(line, key, heatmap=heatmap, mask=sample.mask)
    return writer.finish(out, [])
