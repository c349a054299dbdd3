"""A tiny detector, and a working folder of its own for each test: for the conftest.py files."""

import pytest
from tiny_models import tiny

from artifactnet.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny(size=(32, 32)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
