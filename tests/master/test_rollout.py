"""A generation on its way that does not arrive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

from master.conftest import a_config

from forkd.errors import StartError
from forkd.master.rollout import Rollout


def test_a_defect_of_ours_is_a_failure() -> None:
    def fail(config: object) -> NoReturn:
        raise RuntimeError("a defect")

    listeners = SimpleNamespace(settle=lambda specs: None)
    site: Any = SimpleNamespace(open_tls=fail, listeners=listeners)
    ends: list[StartError | None] = []
    Rollout(site, 2, a_config(), None, lambda rollout, error: ends.append(error)).begin()
    assert [str(error) for error in ends] == ["a defect; the error log has it"]
