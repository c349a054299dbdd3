"""An exported file cannot be explained, and says so."""

from __future__ import annotations

import pytest

from artifactnet.explanation.detector import as_detector
from artifactnet.inference.backends.exported import ExportedModel
from artifactnet.types import ArtifactNetError


def test_exported_files_are_refused():
    exported = ExportedModel.__new__(ExportedModel)  # refused before anything of it is asked
    with pytest.raises(ArtifactNetError, match="neither layers nor gradients"):
        as_detector(exported)
