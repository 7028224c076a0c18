"""What users are told to do works as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from authority import Authority
from e2e.harness import REPOSITORY, Forkd, free_port, wait_for
from e2e.webdriver import Browser

SAMPLES = sorted((REPOSITORY / "conf" / "samples").glob("*.conf"))


def example(language: str) -> str:
    """The block of the README that stands under *language*."""
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    (block,) = [content for name, content in blocks if name == language]
    return block


def test_one_minute_example_of_the_readme(forkd: Forkd, tmp_path: Path) -> None:
    port = free_port()
    config = example("").replace("8081", str(port))
    files = {"shout.py": example("python"), "www/index.html": example("html")}
    server = forkd.start(config, files=files, port=port)
    with Browser(tmp_path / "browser") as browser:
        browser.open(f"{server.url}/")
        wait_for(lambda: browser.texts("#answer") == ["HELLO\n"])
    assert server.stop() == 0


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_fine(path: Path, forkd: Forkd, tmp_path: Path) -> None:
    folder = path.parent
    checked = forkd.run("check", "--strict", "-f", str(path), cwd=folder)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_default_configuration_is_fine(forkd: Forkd) -> None:
    """But for folders and users that this machine may lack, which are warnings."""
    checked = forkd.run("check", "-f", str(REPOSITORY / "conf" / "forkd.conf"))
    assert checked.returncode == 0, checked.stderr


def test_what_the_default_configuration_comments_out_is_fine_too(
    forkd: Forkd, tmp_path: Path
) -> None:
    text = (REPOSITORY / "conf" / "forkd.conf").read_text()
    everything = re.sub(r"^#(?=\S)", "", text, flags=re.M)
    program = forkd.write("echo.pl", "#!/bin/sh\n")
    everything = everything.replace("/usr/local/lib/forkd/echo.pl", str(program))
    issued = Authority(tmp_path / "authority").issue("example.org")
    everything = re.sub(r"/etc/ssl/\S*\.pem", str(issued.certificate), everything)
    everything = re.sub(r"/etc/ssl/\S*\.key", str(issued.key), everything)
    path = forkd.write("everything.conf", everything)
    checked = forkd.run("check", "-f", str(path))
    assert checked.returncode == 0, checked.stderr
