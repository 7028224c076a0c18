"""forkd/hooks/access.py: suffixes that are refused (core.md 13)."""

from __future__ import annotations

import pytest
from fakes import FakeConfig, make_request

from forkd.config.model import HookSettings, RequestConfig, StaticSettings
from forkd.errors import Forbidden
from forkd.hooks import access

DENY = HookSettings(access_deny=("~", ".inc"))
ALLOW = HookSettings(access_deny=(".txt",), access_allow=(".txt", "/"))


def passes(path: str, hooks: HookSettings, folds: bool = False) -> bool:
    static = StaticSettings(force_lowercase_filenames=folds)
    request = make_request(path)
    try:
        settings = RequestConfig(hooks=hooks, static=static)
        assert access.check(request, settings, FakeConfig()) is request
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("hooks", "path", "allowed"),
    [
        (HookSettings(), "/x", True),
        (DENY, "/x", True),
        (DENY, "/x~", False),
        (DENY, "/x%7e", False),
        (DENY, "/x.inc", False),
        (DENY, "/x.INC", True),
        (DENY, "/x.inc/y", True),
        (HookSettings(access_deny=("",)), "/x", False),
        (ALLOW, "/x.txt", True),
        (ALLOW, "/", True),
        (ALLOW, "/x.html", False),
        (HookSettings(access_allow=("",), access_deny=("",)), "/x", True),
        (HookSettings(access_allow=()), "/x", False),
    ],
)
def test_check(hooks, path, allowed):
    assert passes(path, hooks) is allowed


def test_case_is_folded_when_file_names_are():
    assert not passes("/x.INC", DENY, folds=True)
