"""forkd/hooks/rewrite.py: one step of a rewrite (core.md 13); how often, the dispatcher's test
says."""

from __future__ import annotations

import pytest
from fakes import FakeConfig, make_request, rules

from forkd.config.model import HookSettings, RequestConfig
from forkd.errors import BadRequest, ForkdError
from forkd.hooks.rewrite import FINISHED, MAX_REWRITES, rewrite, rewrite_missing

CONFIG = FakeConfig()


def once(*pairs, **more) -> RequestConfig:
    return RequestConfig(hooks=HookSettings(rewrite_once=rules(*pairs), **more))


def test_once_changes_every_form_of_the_url():
    moved = rewrite(make_request("/r/a%20b?q"), once(("^/r/(.*)$", "/n/../$1&x=%%7e")), CONFIG)
    assert (moved.path, moved.query) == ("/a%20b", "q&x=~")
    assert moved.decoded_path == "/a b"
    assert moved.target == "/r/a%20b?q"
    assert moved.rewrites == FINISHED


def test_repeat_counts_and_comes_after_once():
    settings = once(("^/once", "/o"), rewrite_repeat=rules(("^/a", "/b")))
    moved = rewrite(make_request("/a"), settings, CONFIG)
    assert (moved.path, moved.rewrites) == ("/b", 1)
    assert rewrite(make_request("/once"), settings, CONFIG).rewrites == FINISHED


def test_after_once_nothing_is_rewritten():
    request = make_request("/r", rewrites=FINISHED)
    settings = once(("^/r", "/s"), rewrite_if_not_file=rules(("^/r", "/t")))
    assert rewrite(request, settings, CONFIG) is request
    assert rewrite_missing(request, settings, CONFIG) is request


@pytest.mark.parametrize("replacement", ["", "http://h/", "x"])
def test_no_url_no_change(replacement):
    request = make_request("/r")
    assert rewrite(request, once(("^/r", replacement)), CONFIG) is request


def test_circles_end():
    settings = RequestConfig(hooks=HookSettings(rewrite_repeat=rules(("^/a(.*)", "/a$1x"))))
    request = make_request("/abc")
    for _ in range(MAX_REWRITES):
        request = rewrite(request, settings, CONFIG)
    assert request.decoded_path == "/abc" + "x" * MAX_REWRITES
    with pytest.raises(ForkdError) as caught:
        rewrite(request, settings, CONFIG)
    assert caught.value.status == 500


def test_result_is_checked_like_a_request():
    with pytest.raises(BadRequest):
        rewrite(make_request("/r"), once(("^/r", "/a%%00")), CONFIG)


def test_missing_has_rules_of_its_own():
    settings = RequestConfig(
        hooks=HookSettings(
            rewrite_if_not_file=rules(("^/n", "/once")),
            rewrite_repeat_if_not_file=rules(("^/m", "/again")),
        )
    )
    assert rewrite(make_request("/n"), settings, CONFIG).rewrites == 0
    assert rewrite_missing(make_request("/n"), settings, CONFIG).rewrites == FINISHED
    assert rewrite_missing(make_request("/m"), settings, CONFIG).rewrites == 1


def test_an_empty_once_rule_keeps_a_request_from_the_repeat_rules() -> None:
    settings = HookSettings(
        rewrite_once=rules(("^/keep", "")), rewrite_repeat=rules(("^/", "/moved"))
    )
    config = RequestConfig(hooks=settings)
    assert rewrite(make_request("/keep/this"), config, CONFIG).path == "/keep/this"
    assert rewrite(make_request("/other"), config, CONFIG).path == "/moved"
