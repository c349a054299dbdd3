"""The one entry to all converters, as the command ``artifactnet convert`` calls it."""

from __future__ import annotations

from pathlib import Path

from artifactnet.data.converters import FORMATS
from artifactnet.data.converters.common import Conversion
from artifactnet.types import ArtifactNetError


def convert_dataset(
    kind: str,
    source: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    name: str | None = None,
    generator: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of annotated images, to train on or to mix.

    Args:
        kind: one of `FORMATS`.
        source: richhf: folder of TFRecords; expl_aigi_eval: JSON lines; abhuman: folder of masks or
            COCO JSON of boxes; folder: ``real/`` and ``fake/``; demo: a config whose
            ``data.demo_*`` keys say which images.
        out: folder for the manifest and its maps, see `ManifestWriter`.
        images: folder of the images, searched deeply; each is found by path, else by file stem.
            None with folder and demo, which bring theirs.
        name: of the manifest; None: ``kind``.
        generator: of the fakes; None: the data set's own; not with folder and demo.
        overwrite: replace a manifest of this name.

    Raises:
        ArtifactNetError: an option is missing or meaningless for the format, or the data are
            unusable.
        ValueError: unknown ``kind``.
    """
    if kind not in FORMATS:
        raise ValueError(f"kind must be one of {', '.join(FORMATS)}, got {kind!r}")
    out, name = Path(out), name or kind
    if kind in ("folder", "demo"):
        if images or generator:
            raise ArtifactNetError(
                f"convert {kind} takes neither --images nor --generator: both are in it"
            )
        if kind == "demo":
            from artifactnet.config import load
            from artifactnet.data.converters.demo import convert_demo_data

            return convert_demo_data(load(source).data, out, name=name, overwrite=overwrite)
        from artifactnet.data.converters.folder import convert_folder

        return convert_folder(Path(source), out, name=name, overwrite=overwrite)
    if not images:
        raise ArtifactNetError(f"convert {kind} needs --images DIR: its annotations hold no pixels")
    from artifactnet.data.converters.abhuman import convert_abhuman
    from artifactnet.data.converters.expl_aigi_eval import convert_expl_aigi_eval
    from artifactnet.data.converters.richhf import convert_richhf

    convert, default = {
        "richhf": (convert_richhf, "pickapic"),
        "expl_aigi_eval": (convert_expl_aigi_eval, "pickapic"),
        "abhuman": (convert_abhuman, "abhuman"),
    }[kind]
    maker = generator or default
    return convert(Path(source), Path(images), out, name=name, generator=maker, overwrite=overwrite)
