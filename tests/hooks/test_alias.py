"""forkd/hooks/alias.py: prefixes that lie elsewhere (core.md 13)."""

from __future__ import annotations

import pytest
from fakes import FakeConfig, make_request

from forkd.config.model import HookSettings, RequestConfig, StaticSettings
from forkd.errors import Forbidden
from forkd.hooks import alias

ALIASES = (("/a/b/", "/srv/b/"), ("/a/", "/srv/a/"), ("/pre", "/srv/p/"), ("/raw", "/srv/r"))


def remapped(path: str, folds: bool = False, aliases=ALIASES):
    static = StaticSettings(force_lowercase_filenames=folds)
    settings = RequestConfig(hooks=HookSettings(alias=aliases), static=static)
    return alias.remap(make_request(path), settings, FakeConfig()).physical


@pytest.mark.parametrize(
    ("path", "physical"),
    [
        ("/a/f", ("/srv/a/", "/srv/a/f")),
        ("/a/", ("/srv/a/", "/srv/a/")),
        ("/a/b/f", ("/srv/b/", "/srv/b/f")),
        ("/a", None),
        ("/x/a/f", None),
        ("/A/f", None),
        ("/prefile", ("/srv/p/", "/srv/p/file")),
        ("/pre/file", ("/srv/p/", "/srv/p//file")),
        ("/pre...", ("/srv/p/", "/srv/p/...")),
        ("/pre..x/y", ("/srv/p/", "/srv/p/..x/y")),
        ("/raw../f", ("/srv/r", "/srv/r../f")),
        ("/raw", ("/srv/r", "/srv/r")),
    ],
)
def test_remap(path, physical):
    assert remapped(path) == physical


@pytest.mark.parametrize("path", ["/pre..", "/pre../f", "/pre.", "/pre./f"])
def test_the_path_cannot_climb_out(path):
    with pytest.raises(Forbidden):
        remapped(path)


def test_case_is_folded_when_file_names_are():
    assert remapped("/A/File", folds=True) == ("/srv/a/", "/srv/a/file")
    assert remapped("/k/x", folds=True, aliases=(("/K/", "/S/"),)) == ("/S/", "/S/x")
    assert remapped("/%C3%84", folds=True, aliases=(("/", "/S/"),)) == ("/S/", "/S/\xc3\x84")
