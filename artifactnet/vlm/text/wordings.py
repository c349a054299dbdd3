"""Several ways to say each fact about an edited image: for training, and others for testing.

The two sets have no sentence in common, so a model that scores well on the second one's images has
not learned sentences by heart. Each is true of all edits of its category
(`artifactnet.data.synthetic.edits`) and names no other category.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifactnet.taxonomy import UNCATEGORIZED
from artifactnet.vlm.text.places import PLACES


@dataclass(frozen=True, slots=True)
class Wording:
    """One set of sentences.

    Attributes:
        descriptions: with ``{}`` for the caption of the picture that the image was cut from.
        regions: with ``{size}`` and ``{where}``, or ``{Where}`` at the beginning.
        sizes: adjectives for each of `artifactnet.vlm.text.facts.SIZES`.
        wheres: with ``{}`` for the names of places.
        places: names of each of `PLACES`; one set of nine is used for all regions of an image.
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
        PLACES,
        (
            *("top left", "top middle", "top right"),
            *("middle left", "middle", "middle right"),
            *("bottom left", "bottom middle", "bottom right"),
        ),
    ),
    spread=("spread over the image", "all over the image", "scattered across the picture"),
    no_region=(
        "No region looks wrong.",
        "No part of the image stands out.",
        "There is no problematic region.",
        "Nothing in the image looks out of order.",
        "No area is suspicious.",
        "I see no flawed region.",
        "None of the regions looks implausible.",
        "The image has no implausible region.",
    ),
    issues={
        "low-level-texture": (
            "The texture there is not that of the material.",
            "The surface lacks the natural texture of what it shows.",
            "Its texture looks artificial.",
            "A false texture covers this area.",
            "The fine structure of the surface is wrong.",
            "The grain of the material is disturbed.",
            "This is a texture error: the surface does not look real.",
            "The surface pattern does not fit the material.",
            "The problem is one of texture.",
        ),
        "low-level-edge_shape": (
            "Edges and shapes are deformed.",
            "The outlines do not run as they should.",
            "Contours are bent out of their true course.",
            "The shape of things is distorted there.",
            "Edges are not where they should be.",
            "This is an error of edges and shapes.",
            "The silhouettes are warped or torn.",
            "What is there has lost its proper shape.",
            "Lines and outlines are disturbed.",
        ),
        "low-level-symbol": (
            "The letters there mean nothing.",
            "Symbols appear that are in no alphabet.",
            "The writing cannot be read.",
            "Lettering without any sense is written over the image.",
            "This is a symbol error: the characters are senseless.",
            "Signs that look like writing have no meaning.",
            "The text is garbled.",
            "Characters are malformed or invented.",
            "The problem is one of symbols.",
        ),
        "low-level-color": (
            "The colors there are wrong.",
            "Its color is unnatural.",
            "A false hue lies over this area.",
            "The coloring does not fit the objects.",
            "This is a color error.",
            "Colors are not those that the things have.",
            "The tint of this area cannot be real.",
            "Hues are off.",
            "The problem is one of color.",
        ),
        "high-level-semantics": (
            "Parts of something are repeated, mirrored or missing.",
            "An object does not have the parts that it should have.",
            "Object parts are wrong: missing or too many.",
            "Its parts do not add up to a real thing.",
            "This is a semantic error: the parts of the object are wrong.",
            "The number or order of parts cannot be right.",
            "Object parts were duplicated, flipped or removed.",
            "The make-up of the object is not sensible.",
            "Semantically the object is broken.",
        ),
        "cognitive-level-commonsense": (
            "Something has a size or place that defies common sense.",
            "A thing is far out of scale or out of place.",
            "Common sense is violated there.",
            "What is shown could not stand there at that scale.",
            "This is a commonsense error.",
            "An object turns up again where it cannot be.",
            "Its scale or position makes no sense.",
            "Nobody would expect this thing there at that scale.",
            "It is out of place.",
        ),
        "cognitive-level-physics": (
            "Light or reflection contradicts physics.",
            "A shadow, a light or a reflection has no cause.",
            "The lighting is physically impossible.",
            "This is a physics error.",
            "This light, shadow or reflection has no explanation in the scene.",
            "Light does not fall as it does in reality.",
            "The laws of optics are broken there.",
            "A shadow or reflection does not agree with the scene.",
            "The problem is one of physics.",
        ),
        UNCATEGORIZED: (
            "This area was repainted by a neural network.",
            "A network has filled this area in anew.",
            "What is shown here was synthesized, not recorded.",
            "The content was painted in by a generative model.",
            "It was inpainted: no camera saw it.",
            "This area is the invention of a network.",
            "The area was redrawn by a model.",
            "Here the original was replaced by generated content.",
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
