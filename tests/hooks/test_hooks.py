"""forkd/hooks/__init__.py: which hooks run, and in which order (config.md 9.3)."""

from __future__ import annotations

from fakes import FakeConfig, make_request

from forkd import hooks
from forkd.config.model import HookSettings, RequestConfig, ServerSettings
from forkd.hooks import HOOKS, Phase, access, alias, redirect, rewrite, setenv
from forkd.message import Head


def test_modules_give_the_order_within_a_phase():
    modules = ("redirect", "alias", "access", "setenv", "rewrite", "wstunnel")
    by_phase = hooks.hooks_of(modules)
    assert by_phase[Phase.RAW_URL] == (rewrite.rewrite,)
    clean = (redirect.redirect, access.check, setenv.change_request)
    assert by_phase[Phase.CLEAN_URL] == clean
    assert by_phase[Phase.PHYSICAL] == (alias.remap,)
    assert by_phase[Phase.NO_FILE] == (rewrite.rewrite_missing,)
    assert by_phase[Phase.FILE] == (access.check,)


def test_what_is_not_listed_does_not_run():
    assert not any(hooks.hooks_of(()))
    assert hooks.head_hooks_of(("access",)) == ()


def test_every_hook_can_be_reached():
    everything = tuple({row.module for row in HOOKS})
    assert sum(map(len, hooks.hooks_of(everything))) == len(HOOKS)


def test_the_first_that_answers_or_rewrites_ends_a_phase(monkeypatch):
    ran = []

    def step(name, outcome):
        def hook(request, settings, config):
            ran.append(name)
            return outcome(request)

        return hooks.Row(name, Phase.CLEAN_URL, hook)

    rows = (
        step("passes", lambda request: request._replace(host="h")),
        step("rewrites", lambda request: request._replace(rewrites=request.rewrites + 1)),
        step("answers", lambda request: Head(204)),
        step("never", lambda request: request),
    )
    monkeypatch.setattr(hooks, "HOOKS", rows)

    def run(*modules):
        ran.clear()
        config = FakeConfig(server=ServerSettings(modules=modules))
        return hooks.run(Phase.CLEAN_URL, make_request(), RequestConfig(), config)

    hooks.hooks_of.cache_clear()
    try:
        assert run("passes", "answers", "never") == Head(204)
        assert ran == ["passes", "answers"]
        assert run("passes", "rewrites", "never").rewrites == 1
        assert ran == ["passes", "rewrites"]
        assert run("passes", "never").host == "h"
    finally:
        hooks.hooks_of.cache_clear()


def test_head_hooks_run_for_listed_modules():
    settings = RequestConfig(hooks=HookSettings(set_response_header=(("X", "y"),)))
    with_module = FakeConfig(server=ServerSettings(modules=("setenv",)))
    assert hooks.run_head(Head(200), settings, with_module).fields.get("x") == "y"
    assert hooks.run_head(Head(200), settings, FakeConfig()) == Head(200)
