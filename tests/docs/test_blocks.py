"""The code on the pages runs, in order and page by page, in a folder that has what it names."""

from __future__ import annotations

import json

import pytest
import yaml
from doc_pages import PAGES, Block, blocks, commands, name

from artifactnet.cli import main

# pages whose commands run, too; those of all others are parsed (tests/test_docs.py)
COMMANDS = ("docs/index.md", "docs/tour.md", "docs/howto/detect.md", "docs/howto/check.md",
            "docs/howto/train.md")  # fmt: skip
# where pages find servers -> the fixture that is one
URLS = {"http://localhost:8000/v1": "endpoint", "http://127.0.0.1:8000": "server"}


def steps(page) -> list[Block]:
    """What a reader of the page would run."""
    languages = ("python", "bash") if name(page) in COMMANDS else ("python",)
    return [block for block in blocks(page) if block.language in languages]


RUN = [page for page in PAGES if steps(page)]


@pytest.mark.parametrize("page", RUN, ids=name)
def test_code_runs(page, workspace, request, monkeypatch):
    text = "\n".join(block.text for block in steps(page))
    workspace(text, real=name(page) == "docs/tour.md")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    if "hf:" in text:
        request.getfixturevalue("hub")
    urls = {url: request.getfixturevalue(fixture) for url, fixture in URLS.items() if url in text}
    namespace = {"__name__": "docs", "__file__": str(page)}
    for block in steps(page):
        if block.language == "bash":
            for words in commands(block):
                print("$ artifactnet", *words)
                assert main(words) == 0, f"{name(page)}:{block.line}: artifactnet {' '.join(words)}"
            continue
        source = block.text
        for url, other in urls.items():
            source = source.replace(url, other)
        # tracebacks name the page and its line
        code = compile("\n" * (block.line - 1) + source, name(page), "exec")
        exec(code, namespace)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_data_is_well_formed(page):
    for block in blocks(page):
        if block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            _parse_objects(block.text)


def _parse_objects(text: str) -> None:
    """JSON objects one after the other."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        assert isinstance(value, dict)
        rest = rest[end:].strip()
