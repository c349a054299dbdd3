"""Which of the packages that ArtifactNet asks for are installed, for itself and for its extras."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

_FOR_DEVELOPERS = ("test", "all")  # extras that add no ability of their own


@dataclass(frozen=True, slots=True)
class Requirements:
    """What is asked for and what is there.

    Attributes:
        installed: package -> version, of the packages that ArtifactNet cannot do without.
        missing: those that are absent or of another version, as pip names them.
        extras: extra -> what of it is missing, likewise; empty: it can be used.
    """

    installed: dict[str, str]
    missing: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]


def find_requirements(package: Distribution | None = None) -> Requirements:
    """Compare what ArtifactNet asks for with what is installed.

    Args:
        package: what asks; None: ArtifactNet.

    Raises:
        ArtifactNetError: ArtifactNet itself is not installed.
    """
    from packaging.requirements import Requirement

    if package is None:
        try:
            package = distribution("artifactnet")
        except PackageNotFoundError as error:
            from artifactnet.types import ArtifactNetError  # with torch, which may be missing too

            raise ArtifactNetError(
                "artifactnet is not installed, so what it needs is unknown; in a checkout: "
                "pip install -e ."
            ) from error
    asked = [Requirement(line) for line in package.requires or ()]

    def needed(extra: str) -> list[Requirement]:
        return [r for r in asked if r.marker is None or r.marker.evaluate({"extra": extra})]

    def missing(requirements: list[Requirement]) -> tuple[str, ...]:
        return tuple(
            f"{r.name}{r.specifier}" + (f" (there is {there})" if there else "")
            for r in requirements
            for there in (package_version(r.name),)
            if there is None or not r.specifier.contains(there, prereleases=True)
        )

    base = needed("")
    versions = {r.name: package_version(r.name) for r in base}
    extras = package.metadata.get_all("Provides-Extra") or []
    return Requirements(
        {name: version for name, version in sorted(versions.items()) if version is not None},
        missing(base),
        {
            extra: missing([r for r in needed(extra) if r not in base])
            for extra in sorted(extras)
            if extra not in _FOR_DEVELOPERS
        },
    )


def package_version(package: str) -> str | None:
    """Version of an installed package; None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
