from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.h2_site import Site, shared_site
from e2e.harness import Forkd


@pytest.fixture
def forkd(tmp_path: Path) -> Iterator[Forkd]:
    """Starts servers below ``tmp_path``; fails when one leaves a process or an error behind."""
    factory = Forkd(tmp_path)
    yield factory
    problems = factory.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(scope="module")
def shared_forkd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forkd]:
    """The same for all tests of a module together, which leave its servers as they were."""
    factory = Forkd(tmp_path_factory.mktemp("shared"))
    yield factory
    problems = factory.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server of the HTTP/2 tests, which leave it as it was."""
    with shared_site(tmp_path_factory) as site:
        yield site
