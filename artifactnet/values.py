"""Values as they are written in YAML or after ``key=``, and what they are by the type of their key.

YAML 1.1 reads 010 as 8, 12:30 as 750 and 1.10 as 1.1, whatever the key. So every scalar is kept as
the characters that were written (`Scalar`), and `convert` reads them as the type of the schema.
"""

from __future__ import annotations

import re
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = frozenset(("true", "yes", "on", "y")), frozenset(("false", "no", "off", "n"))
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')"""
_LIST_ITEM = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(?:,|\Z)", re.DOTALL)
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MOST_CHARACTERS, _MOST_VALUES = 200_000, 100_000  # of a text; its parser is slow
_PLAIN_TAG, _TEXT_TAG = "!plain", "tag:yaml.org,2002:str"
_SCALARS = ("int", "float", "bool", "null")


class Scalar(str):
    """The characters of a scalar; ``quoted`` if it stood in quotes, and so is text."""

    quoted: bool

    def __new__(cls, text: str, quoted: bool = False) -> Scalar:
        """Text that remembers whether it was quoted."""
        self = super().__new__(cls, text)
        self.quoted = quoted
        return self

    @property
    def is_null(self) -> bool:
        """Whether it is one of YAML's words for nothing."""
        return not self.quoted and self in _NULLS


class _Loader(yaml.SafeLoader):
    """YAML whose scalars are `Scalar`, and where a key that occurs twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        for key, _ in pairs:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"key {key.value!r} occurs twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_written(self, node: yaml.ScalarNode) -> Scalar:
        """The scalar itself; ``!!str`` counts as quotes."""
        return Scalar(self.construct_scalar(node), node.style is not None or node.tag == _TEXT_TAG)


# only `<<` keeps its meaning; all other plain scalars are characters, whatever they look like
_Loader.DEFAULT_SCALAR_TAG = _PLAIN_TAG
_Loader.yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"<<$"))]}
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.endswith((":seq", ":map"))
}
for _tag in (_PLAIN_TAG, _TEXT_TAG, *(f"tag:yaml.org,2002:{t}" for t in _SCALARS)):
    _Loader.add_constructor(_tag, _Loader.construct_written)


def parse_yaml(text: str) -> Any:
    """Dictionaries and lists of `Scalar`; None for a text without content.

    Raises:
        yaml.YAMLError: it is no YAML, is nested too deeply, or is far larger than any recipe.
    """
    if len(text) > _MOST_CHARACTERS:
        raise yaml.YAMLError(f"more than {_MOST_CHARACTERS:,} characters; no recipe is as long")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an escape that is no character
        raise yaml.YAMLError(str(error)) from None


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for, those of an alias counted as often as it occurs."""
    if id(node) not in sizes:
        sizes[id(node)] = 0  # until it is known
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    elif sizes[id(node)] == 0:
        problem = "an alias stands inside of what it stands for"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return sizes[id(node)]


def parse_written(text: str, hint: Any) -> Any:
    """What stands after ``key=``, for a key of type ``hint`` (None: any).

    Text, and the items of a list of texts, are the characters themselves; one that is in quotes
    is read as YAML reads quotes. Everything else is YAML.

    Raises:
        yaml.YAMLError: it cannot be read.
    """
    wanted, _ = without_none(hint)
    if wanted is str:
        return _written_text(text)
    if wanted == list[str] and re.fullmatch(r"\s*\[.*\]\s*", text, re.DOTALL):
        return _written_list(text.strip()[1:-1])
    read = parse_yaml(text)
    return Scalar("") if read is None else read


def _written_text(text: str) -> Any:
    return parse_yaml(text) if re.fullmatch(_QUOTED, text, re.DOTALL) else Scalar(text)


def _written_list(inside: str) -> list[Any]:
    """Items between commas, without the spaces around them; the last comma may be followed by ]."""
    items, at = [], 0
    while inside[at:].strip():
        match = _LIST_ITEM.match(inside, at)
        assert match is not None  # an item may hold anything but a comma
        if not match[1]:
            raise yaml.YAMLError("an item of the list is empty")
        items.append(_written_text(match[1]))
        at = match.end()
    return items


def convert(value: Any, hint: Any) -> Any:
    """A value as the type of its key.

    Integers are written as in Python (16, 0x10, 1_000): 010 and 1:30 are not numbers.

    Args:
        value: `Scalar`, or lists and dictionaries of them; or a value that has its type already.
        hint: ``bool``, ``int``, ``float``, ``str``, a list of one of them, ``dict[str, Any]``
            or ``dict[str, float]``; each of these may be optional.

    Raises:
        ValueError: it is not of that type.
    """
    wanted, optional = without_none(hint)
    null = value is None or (isinstance(value, Scalar) and value.is_null)
    if null and optional:
        return None
    if get_origin(wanted) is dict:
        if not null and not isinstance(value, dict):
            raise ValueError("not a mapping")
        if null:
            return {}
        if get_args(wanted)[1] is float:
            return {str(key): _number(item) for key, item in value.items()}
        return free_value(value)
    if get_origin(wanted) is list:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return [convert(item, get_args(wanted)[0]) for item in value]
    return {bool: _switch, int: _integer, float: _number, str: _text}[wanted](value)


def free_value(value: Any) -> Any:
    """A value that has no type in the schema: numbers, true, false and null, or else text."""
    if isinstance(value, dict):
        return {str(key): free_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [free_value(item) for item in value]
    if not isinstance(value, Scalar):
        return value
    if value.quoted:
        return str(value)
    if value.is_null:
        return None
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for read in (_integer, _number):
        try:
            return read(value)
        except ValueError:
            continue
    return str(value)


def without_none(hint: Any) -> tuple[Any, bool]:
    """The type of a key where it is not None, and whether it may be None."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    optional = NoneType in get_args(hint)
    return (kinds[0] if optional else hint), optional


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("not text")


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return word in _TRUE


def _integer(value: Any) -> int:
    if isinstance(value, str) and value.isascii():
        return int(value, 0)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("not an integer")


def _number(value: Any) -> float:
    if isinstance(value, str):
        if _NOT_FINITE.fullmatch(value):
            return float(value.replace(".", ""))
        if _DECIMAL.fullmatch(value):
            return float(value)
    elif isinstance(value, float):
        return value
    try:
        return float(_integer(value))
    except OverflowError:
        raise ValueError("too large") from None
