"""The test sets of an experiment, and real images for those that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from artifactnet.data.test_sets.base import TestSet, join_reals
from artifactnet.data.test_sets.read import (
    USES,
    MissingTestSet,
    TestSetOptions,
    layout_of,
    read_test_set,
)
from artifactnet.names import unsafe_name
from artifactnet.types import ArtifactNetError


def read_sets(
    roots: Mapping[str, str],
    reals: Sequence[str],
    options: TestSetOptions | None = None,
    missing: dict[str, str] | None = None,
) -> dict[str, TestSet]:
    """Read test sets, and give real images to those that have none.

    Args:
        roots: name -> folder or file.
        reals: ``SET=WHAT``, or ``WHAT`` for every set of fakes alone: a folder of photographs, or
            the name of another set, whose real images are taken. Of X-AIGD a folder is that of the
            photographs of its uids.
        options: what layouts leave open; its own ``reals`` are not used.
        missing: gets the sets that do not exist, with the reason; None: they are an error.

    Raises:
        ArtifactNetError: a set cannot be read; no set exists; ``reals`` names no set, or a set
            that has real images of its own; or an option is for a layout that no set has.
    """
    options = options or TestSetOptions()
    wanted = _wanted_reals(roots, reals)
    found: dict[str, TestSet] = {}
    for name, root in roots.items():
        problem = unsafe_name(name)
        if problem is not None:
            raise ArtifactNetError(f"--on {name}={root}: the name {problem}")
        own = wanted.get(name)
        uids = own if own not in roots and layout_of(name, Path(root)) == "xaigd" else None
        try:
            found[name] = read_test_set(
                name, root, replace(options, reals=None if uids is None else Path(uids))
            )
        except MissingTestSet as error:
            if missing is None:
                raise
            missing[name] = str(error)
            continue
        if uids is not None:
            del wanted[name]
    if not found:
        raise ArtifactNetError(
            f"none of the test sets exists: {'; '.join((missing or {}).values())}"
        )
    for option, layouts in USES.items():
        if getattr(options, option) is not None and not any(
            one.layout in layouts for one in found.values()
        ):
            raise ArtifactNetError(f"--{option} is for {', '.join(layouts)}, and no set is one")
    return found | _with_reals(found, roots, wanted, options)


def _wanted_reals(roots: Mapping[str, str], reals: Sequence[str]) -> dict[str, str]:
    """Set (``""``: all of fakes alone) -> where its real images are."""
    wanted: dict[str, str] = {}
    for text in reals:
        name, equals, what = text.partition("=")
        if not equals or Path(text).exists():
            name, what = "", text
        if name and name not in roots:
            raise ArtifactNetError(f"--reals {text}: no set is called {name!r}: {', '.join(roots)}")
        if name in wanted:
            raise ArtifactNetError(f"--reals {text}: {name or 'all sets'} have {wanted[name]}")
        if what not in roots and not Path(what).is_dir():
            raise ArtifactNetError(
                f"--reals {text}: {what!r} is neither a set of --on nor a folder"
            )
        wanted[name] = what
    return wanted


def _with_reals(
    found: Mapping[str, TestSet],
    roots: Mapping[str, str],
    wanted: Mapping[str, str],
    options: TestSetOptions,
) -> dict[str, TestSet]:
    """The sets that get real images, with them."""
    changed: dict[str, TestSet] = {}
    for name, what in wanted.items():
        alone = [key for key, one in found.items() if one.only == "fake"]
        targets = [key for key in alone if key not in wanted] if not name else [name]
        if name and name not in found:
            continue  # a set that does not exist
        if not targets or not set(targets) <= set(alone):
            raise ArtifactNetError(
                f"--reals {name + '=' if name else ''}{what}: "
                f"{name + ' has' if name else 'all sets have'} real images already"
            )
        for target in targets:
            if what not in roots:
                own = replace(options, reals=Path(what))
                changed[target] = read_test_set(target, roots[target], own)
            elif what not in found:
                raise ArtifactNetError(f"--reals {what}: that set does not exist")
            else:
                changed[target] = join_reals(found[target], found[what])
    return changed
