"""The pages say what the code does, as far as a machine can tell."""

import dataclasses
import json
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
from doc_pages import PAGES, blocks, commands

from artifactnet.cli import _parser
from artifactnet.config import Config, load, schema, to_dict

ROOT = Path(__file__).parent.parent
LEAVES = [key for key, kind in schema().items() if not dataclasses.is_dataclass(kind)]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def key_rows() -> dict[str, str]:
    """Key and default of every row of the tables in configuration.md."""
    keys = text("docs/configuration.md").partition("## All keys")[2]
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", keys, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a key has two rows"
    return dict(rows)


def test_every_key_is_explained():
    assert sorted(key_rows()) == sorted(LEAVES)


@pytest.mark.parametrize("key", LEAVES)
def test_stated_default_is_the_default(key):
    value = to_dict(Config())
    for part in key.split("."):
        value = value[part]
    assert json.loads(key_rows()[key]) == value


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


SHOWN = [words for page in PAGES for block in blocks(page) for words in commands(block)]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_shown_commands_parse(words):
    args = _parser().parse_args(words)
    if words[0] in ("train", "config"):
        load(args.config, args.overrides)


def test_readme_has_the_two_commands():
    readme = text("README.md")
    assert "\npip install -e . && python tools/train.py configs/dinov2_align.yaml\n" in readme
    assert "\npip install -e '.[test]' && pytest\n" in readme
    assert (ROOT / "tools" / "train.py").is_file()
    assert (ROOT / "configs" / "dinov2_align.yaml").is_file()


def test_recipes_are_listed():
    listed = set(re.findall(r"^\| `([\w/]+)` \|", text("docs/configuration.md"), re.MULTILINE))
    recipes = {
        p.relative_to(ROOT / "configs").with_suffix("").as_posix()
        for p in (ROOT / "configs").rglob("*.yaml")
    }
    assert recipes <= listed


def test_extras_are_listed():
    listed = set(re.findall(r"^\| `([\w-]+)` \|", text("docs/install.md"), re.MULTILINE))
    extras = set(metadata("artifactnet").get_all("Provides-Extra"))
    assert extras == listed
