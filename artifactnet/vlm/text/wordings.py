"""Several ways to say each fact about an edited image: for training, and others for testing.

The two sets have no sentence in common, so a model that scores well on the second one's images has
not learned sentences by heart. Each is true of all edits of its category
(`artifactnet.data.synthetic.edits`) and names no other category.

In training all categories share their sentences but for the words that name them, and whatever
denies a flaw begins alike. So a choice of wording gives nothing away, and greedy decoding takes the
most probable category: with sentences of their own, many probable sentences about one category
would lose to a single one about another. Some of them have the category's word of short answers
(`artifactnet.vlm.text.template.CATEGORY_WORDS`), which a model that learned those first reads from
the image: without it, "shadow" was not found to mean light.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifactnet.taxonomy import UNCATEGORIZED
from artifactnet.vlm.text.places import ROW_FIRST


@dataclass(frozen=True, slots=True)
class Wording:
    """One set of sentences.

    Attributes:
        descriptions: with ``{}`` for the caption of the picture that the image was cut from.
        regions: with ``{size}`` and ``{where}``, or ``{Where}`` at the beginning.
        sizes: adjectives for each of `artifactnet.vlm.text.facts.SIZES`.
        wheres: with ``{}`` for the names of places.
        places: names of each of `artifactnet.vlm.text.places.PLACES`; one set of nine is used for
            all regions of an image.
        spread: instead of a place, of a region that has no main one.
        no_region: instead of the regions of an image without any.
        issues: what is wrong, by label of the category.
        strengths: sentences for each of `artifactnet.vlm.text.facts.STRENGTHS`.
        no_issue: instead of the issues of an image without any.
        verdicts: sentences for each of `artifactnet.vlm.text.facts.PLAUSIBILITIES`.
    """

    descriptions: tuple[str, ...]
    regions: tuple[str, ...]
    sizes: tuple[tuple[str, ...], ...]
    wheres: tuple[str, ...]
    places: tuple[tuple[str, ...], ...]
    spread: tuple[str, ...]
    no_region: tuple[str, ...]
    issues: dict[str, tuple[str, ...]]
    strengths: tuple[tuple[str, ...], ...]
    no_issue: tuple[str, ...]
    verdicts: tuple[tuple[str, ...], ...]


TRAIN = Wording(
    descriptions=(
        "Part of a picture of {}.",
        "A crop from a picture of {}.",
        "The image is cut from a picture of {}.",
        "This is a piece of a picture of {}.",
        "A square cut out of a picture of {}.",
        "The scene is part of a picture of {}.",
    ),
    regions=(
        "A {size} area {where}.",
        "A {size} region {where} looks wrong.",
        "{Where}: a {size} patch.",
        "There is a {size} spot {where}.",
        "Suspicious is a {size} area {where}.",
        "{Where}, a {size} part stands out.",
        "Look {where}: the flaw is {size}.",
        "The trouble lies {where}, in a {size} area.",
    ),
    sizes=(("small", "little"), ("medium-sized", "mid-sized"), ("large", "big")),
    wheres=("in the {} of the image", "toward the {} of the picture", "in the {}"),
    places=(
        ROW_FIRST,
        (
            *("upper left", "upper middle", "upper right"),
            *("center left", "center", "center right"),
            *("lower left", "lower middle", "lower right"),
        ),
    ),
    spread=("spread over the image", "all over the image", "scattered across the picture"),
    no_region=(
        "No region looks wrong.",
        "No part of the image stands out.",
        "No region is problematic.",
        "No place in the image looks out of order.",
        "No area is suspicious.",
        "No flawed region can be seen.",
        "No region looks implausible.",
        "No implausible region was found.",
    ),
    issues={
        "low-level-texture": (
            "This is a texture error.",
            "The problem is one of texture.",
            "There the texture is wrong.",
            "Look at the surface: its grain is not that of the material.",
            "Its surface cannot be real.",
            "A flaw of textures.",
            "What disturbs is its grain.",
            "The error concerns the texture.",
        ),
        "low-level-edge_shape": (
            "This is a shape error.",
            "The problem is one of shape.",
            "There the shape is wrong.",
            "Look at the outlines: they do not run as they should.",
            "Its silhouette cannot be real.",
            "A flaw of edges.",
            "What disturbs is its contour.",
            "The error concerns the outlines.",
        ),
        "low-level-symbol": (
            "This is a symbol error.",
            "The problem is one of symbols.",
            "There the lettering is wrong.",
            "Look at the letters: they mean nothing.",
            "Its writing cannot be real.",
            "A flaw of characters.",
            "What disturbs is its text.",
            "The error concerns the symbols.",
        ),
        "low-level-color": (
            "This is a color error.",
            "The problem is one of color.",
            "There the color is wrong.",
            "Look at the hues: no such thing has them.",
            "Its coloring cannot be real.",
            "A flaw of colors.",
            "What disturbs is its tint.",
            "The error concerns the hues.",
        ),
        "high-level-semantics": (
            "This is a semantic error.",
            "The problem is one of semantics.",
            "There the make-up is wrong.",
            "Look at the parts: some are repeated, mirrored or missing.",
            "Its make-up cannot be real.",
            "A flaw of object parts.",
            "What disturbs is its make-up.",
            "The error concerns the object parts.",
        ),
        "cognitive-level-commonsense": (
            "This is a commonsense error.",
            "The problem is one of common sense.",
            "There the scale is wrong.",
            "Look at the scale: nobody would expect this thing there.",
            "Its scale cannot be real.",
            "A flaw of common sense.",
            "What disturbs is its scale.",
            "The error concerns the scale.",
        ),
        "cognitive-level-physics": (
            "This is a physics error.",
            "The problem is one of shadow or light.",
            "There the shadow or light is wrong.",
            "Look at the shadow or light: nothing in the scene explains it.",
            "Its shadow or reflection cannot be real.",
            "A flaw of shadow or reflection.",
            "What disturbs is its shadow or reflection.",
            "The error concerns the shadow or reflection.",
        ),
        UNCATEGORIZED: (
            "This is an inpainting error.",
            "The problem is one of inpainting.",
            "There the inpainted content is wrong.",
            "Look at the content: a network painted it in.",
            "Its inpainted content cannot be real.",
            "A flaw of inpainting.",
            "What disturbs is its inpainted content.",
            "The error concerns the inpainting.",
        ),
    },
    strengths=tuple(
        (
            f"The change is {adjective}.",
            f"It changes the image {adverb}.",
            f"Severity: {degree}.",
            f"It is a {degree} case.",
            f"The damage is {degree}.",
        )
        for adjective, adverb, degree in (
            ("slight", "a little", "mild"),
            ("marked", "clearly", "moderate"),
            ("drastic", "strongly", "severe"),
        )
    ),
    no_issue=(
        "Nothing is wrong with the image.",
        "The image has no defect.",
        "No artifact can be seen.",
        "Everything is as it should be.",
        "There is nothing to criticize.",
        "No issue was found.",
        "The image is free of flaws.",
        "All of it looks natural.",
    ),
    verdicts=tuple(
        (
            f"Plausibility: {degree}.",
            f"Overall the image is {adverb} plausible.",
            f"All in all, its plausibility is {degree}.",
            f"So the image as a whole is {adverb} plausible.",
        )
        for degree, adverb in (
            ("very low", "hardly"),
            ("low", "not very"),
            ("fair", "fairly"),
            ("high", "largely"),
            ("full", "fully"),
        )
    ),
)

HELD_OUT = Wording(
    descriptions=(
        "A section of a picture of {}.",
        "Taken from a picture of {}.",
        "One sees a detail of a picture of {}.",
    ),
    regions=(
        "One {size} place {where} is not as it should be.",
        "{Where} one finds a {size} flaw.",
        "Attention goes to a {size} zone {where}.",
        "Implausible: a {size} section {where}.",
    ),
    sizes=(("compact", "tiny"), ("moderate-sized", "middling"), ("broad", "sizable")),
    wheres=("around the {} of the frame", "near the {}"),
    places=(
        (
            *("upper-left ninth", "upper-middle ninth", "upper-right ninth"),
            *("middle-left ninth", "central ninth", "middle-right ninth"),
            *("lower-left ninth", "lower-middle ninth", "lower-right ninth"),
        ),
        (
            *("top-left part", "upper part", "top-right part"),
            *("left part", "central part", "right part"),
            *("bottom-left part", "lower part", "bottom-right part"),
        ),
    ),
    spread=("dispersed over the whole frame", "distributed across all of the frame"),
    no_region=(
        "Not a single region raises doubt.",
        "Every region looks sound.",
        "No place calls for attention.",
        "There is nothing to mark.",
    ),
    issues={
        "low-level-texture": (
            "The material has lost its true texture.",
            "What should be a natural surface has an unnatural feel.",
            "Surface detail is not what the material would show.",
            "Textural detail is unnatural here.",
        ),
        "low-level-edge_shape": (
            "Contours have lost their form.",
            "The geometry of edges is corrupted.",
            "Shapes are mangled.",
            "An outline that should be clean is distorted.",
        ),
        "low-level-symbol": (
            "Its glyphs spell no word.",
            "The script is gibberish.",
            "Illegible lettering stands there.",
            "What looks like text is made of false characters.",
        ),
        "low-level-color": (
            "Discoloration marks the area.",
            "Its palette departs from that of the scene.",
            "The color of this spot is not natural.",
            "Wrong hues cover what is shown.",
        ),
        "high-level-semantics": (
            "Some component occurs twice, is turned round or is absent.",
            "The components of the thing do not go together.",
            "A semantic flaw: what makes up the object is not right.",
            "Limbs, pieces or other parts are not as they are in reality.",
        ),
        "cognitive-level-commonsense": (
            "Everyday experience speaks against this size or position.",
            "The item is out of proportion or out of place.",
            "Against all common sense, it is there.",
            "Such a thing does not occur at this scale in such a position.",
        ),
        "cognitive-level-physics": (
            "The way light behaves there is against nature.",
            "The shading or reflection has no source.",
            "Optically this cannot happen.",
            "It breaks the physical rules of illumination.",
        ),
        UNCATEGORIZED: (
            "A generator invented what is seen here.",
            "Neural inpainting replaced this region.",
            "The pixels were synthesized by a machine.",
            "It is machine-made content in place of the original.",
        ),
    },
    strengths=tuple(
        (f"In degree this is {degree}.", f"The deviation is {size}.")
        for degree, size in (("weak", "minor"), ("medium", "plain"), ("strong", "massive"))
    ),
    no_issue=(
        "The image is intact.",
        "No fault shows up.",
        "It contains no error of any kind.",
        "Everything looks the way it does in reality.",
    ),
    verdicts=tuple(
        (f"In sum, one believes the image {adverb}.", f"As a whole it is {adjective}.")
        for adverb, adjective in (
            ("not at all", "wholly implausible"),
            ("barely", "rather implausible"),
            ("halfway", "halfway credible"),
            ("mostly", "mostly credible"),
            ("completely", "completely credible"),
        )
    ),
)
