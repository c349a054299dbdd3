"""What is installed of what a package asks for."""

from importlib.metadata import Distribution, version

import pytest

from artifactnet.runs import requirements
from artifactnet.runs.requirements import find_requirements
from artifactnet.types import ArtifactNetError

METADATA = """\
Metadata-Version: 2.1
Name: asks
Version: 1
Provides-Extra: nothing
Provides-Extra: more
Provides-Extra: test
Requires-Dist: numpy>=1.0
Requires-Dist: pillow>=9999
Requires-Dist: no-such-package-of-ours<2,>=1
Requires-Dist: winapi-of-ours; sys_platform == "no such platform"
Requires-Dist: numpy>=9999; extra == "more"
Requires-Dist: packaging; extra == "more"
Requires-Dist: no-such-extra-of-ours; extra == "more"
Requires-Dist: numpy>=1.0; extra == "nothing"
Requires-Dist: no-such-tool-of-ours; extra == "test"
"""


def test_what_is_missing_is_named_as_pip_names_it(tmp_path):
    (tmp_path / "METADATA").write_text(METADATA)
    found = find_requirements(Distribution.at(tmp_path))
    assert found.installed == {"numpy": version("numpy"), "pillow": version("pillow")}
    old = f"pillow>=9999 (there is {version('pillow')})"
    assert found.missing == (old, "no-such-package-of-ours<2,>=1")
    numpy = f"numpy>=9999 (there is {version('numpy')})"
    assert found.extras == {"more": (numpy, "no-such-extra-of-ours"), "nothing": ()}


def test_ours():
    found = find_requirements()
    assert found.missing == ()
    assert {"torch", "opencv-python-headless"} <= found.installed.keys()
    assert {"onnx", "openvino", "mllm", "endpoint"} <= found.extras.keys()
    assert not {"test", "all"} & found.extras.keys()


def test_not_installed_is_one_line(monkeypatch):
    def nothing(name):
        raise requirements.PackageNotFoundError(name)

    monkeypatch.setattr(requirements, "distribution", nothing)
    with pytest.raises(ArtifactNetError, match="pip install -e"):
        find_requirements()
