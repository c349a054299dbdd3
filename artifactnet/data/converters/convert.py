"""The one entry to all converters, as the command ``artifactnet convert`` calls it."""

from __future__ import annotations

from pathlib import Path

from artifactnet.data.converters import FORMATS
from artifactnet.data.converters.common import Conversion
from artifactnet.types import ArtifactNetError

_BRING_IMAGES = ("labelme", "xaigd_boxes", "fakeclue", "synthscars", "folder", "demo")


def convert_dataset(
    kind: str,
    source: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    name: str | None = None,
    generator: str | None = None,
    overwrite: bool = False,
    texts: bool = False,
) -> Conversion:
    """Make a manifest of annotated images, to train on or to mix.

    Args:
        kind: one of `FORMATS`.
        source: richhf: folder of TFRecords; expl_aigi_eval, fakexplain: JSON lines; abhuman: folder
            of masks or COCO JSON of boxes; coco: COCO JSON of captioned boxes; labelme: folder of
            its JSON files; xaigd_boxes: folder of X-AIGD's shards; fakeclue, synthscars: folder of
            the data set; folder: ``real/`` and ``fake/``; demo: a config whose ``data.demo_*`` keys
            say which images.
        out: folder for the manifest and its maps, see `ManifestWriter`.
        images: folder of the images, searched deeply; each is found by path, else by file stem.
            None with folder and demo, which bring theirs. May be None with labelme, fakeclue and
            synthscars: beside the annotations; xaigd_boxes: of the photographs (``source/real``).
        name: of the manifest; None: ``kind``.
        generator: of the fakes; None: the data set's own; not with folder, demo and xaigd_boxes.
        overwrite: replace a manifest of this name.
        texts: fakeclue: keep the explanations.

    Raises:
        ArtifactNetError: an option is missing or meaningless for the format, or the data are
            unusable.
        ValueError: unknown ``kind``.
    """
    if kind not in FORMATS:
        raise ValueError(f"kind must be one of {', '.join(FORMATS)}, got {kind!r}")
    out, name = Path(out), name or kind
    if texts and kind != "fakeclue":
        raise ArtifactNetError(f"convert {kind} does not take --texts, which is for fakeclue")
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
    if not images and kind not in _BRING_IMAGES:
        raise ArtifactNetError(f"convert {kind} needs --images DIR: its annotations hold no pixels")
    source, place = Path(source), Path(images) if images else None
    if kind == "xaigd_boxes":
        from artifactnet.data.converters.xaigd_boxes import convert_xaigd_boxes

        if generator:
            raise ArtifactNetError("convert xaigd_boxes takes no --generator: its rows name theirs")
        return convert_xaigd_boxes(source, place, out, name=name, overwrite=overwrite)
    if kind == "fakeclue":
        from artifactnet.data.converters.fakeclue import convert_fakeclue

        return convert_fakeclue(
            source, place or source, out, name=name, generator=generator or kind,
            overwrite=overwrite, texts=texts,
        )  # fmt: skip
    from artifactnet.data.converters.abhuman import convert_abhuman
    from artifactnet.data.converters.coco import convert_coco
    from artifactnet.data.converters.expl_aigi_eval import convert_expl_aigi_eval
    from artifactnet.data.converters.fakexplain import convert_fakexplain
    from artifactnet.data.converters.labelme import convert_labelme
    from artifactnet.data.converters.richhf import convert_richhf
    from artifactnet.data.converters.synthscars import convert_synthscars

    convert, default = {
        "richhf": (convert_richhf, "pickapic"),
        "expl_aigi_eval": (convert_expl_aigi_eval, "pickapic"),
        "abhuman": (convert_abhuman, "abhuman"),
        "fakexplain": (convert_fakexplain, "fakexplained"),
        "coco": (convert_coco, "fake"),
        "labelme": (convert_labelme, "fake"),
        "synthscars": (convert_synthscars, "synthscars"),
    }[kind]
    maker = generator or default
    return convert(source, place or source, out, name=name, generator=maker, overwrite=overwrite)
