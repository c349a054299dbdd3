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
    """Write the images, masks, heatmaps and scores of the demo data, and their manifest.

    Args:
        config: its ``demo_*`` keys say which images.
        out: see `artifactnet.data.converters.common.ManifestWriter`, as for ``name`` and ``overwrite``.
        name: of the manifest.
        overwrite: replace the manifest.

    Raises:
        ArtifactNetError: a packaged photograph is missing, or the manifest exists.
    """
    output = ManifestWriter(out, name, overwrite)
    for split, source in demo.build_demo_splits(config, seed=0).items():
        assert isinstance(source, demo.DemoSource)
        for index, record in enumerate(source.records):
            key = f"{split}/{record.uid}-{'fake' if record.label else 'real'}"
            path = out / "images" / name / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(source.encoded(index))
            sample = source.load(index)
            heatmap = mask = None
            if sample.mask is not None and sample.heatmap is not None:
                mask = output.store("masks", key, sample.mask, str(path))
                levels = np.round(sample.heatmap * 255).astype(np.uint8)
                heatmap = output.store("heatmaps", key, levels, str(path))
            output.lines.append(
                ManifestLine(
                    image=str(path),
                    uid=record.uid,
                    label=record.label,
                    annotation=record.annotation,
                    split=split,
                    generator=record.generator,
                    heatmap=heatmap,
                    mask=mask,
                    score=sample.score,
                    categories=record.categories,
                )
            )
    return output.finish(out, [])
