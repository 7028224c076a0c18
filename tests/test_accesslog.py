"""Access log: formats compiled, values escaped, lines held and written."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest
from vectors_loader import load, vector_id

from forkd.accesslog import (
    CODES,
    FLUSH_SIZE,
    MAX_HELD,
    AccessLogs,
    Ended,
    Entry,
    begin_line,
    compile_format,
    cookie,
    escape_default,
    escape_json,
)
from forkd.address import Address
from forkd.config.model import AccessLogSettings
from forkd.message import ConnInfo, Fields, Request

CONNECTION = ConnInfo(
    peer=Address("127.0.0.1", 4711),
    local=Address("127.0.0.9", 8080),
    listener=Address("0.0.0.0", 8080),
)
REQUEST = Request(
    method="GET",
    target="/a%20b.txt?q=%31",
    version="HTTP/1.1",
    host="site.example:8080",
    path="/a%20b.txt",
    query="q=1",
    decoded_path="/a b.txt",
    fields=Fields([("User-Agent", 'ua "q"'), ("X-A", "v"), ("Cookie", "k=v; l=w")]),
    content_length=0,
    keep_alive=True,
    connection=CONNECTION,
    remote=Address("10.1.2.3", 99),
    environment=(("REMOTE_USER", "alice"), ("E", "set")),
)
ENTRY = Entry(
    request=REQUEST,
    connection=CONNECTION,
    status=200,
    body_bytes=6,
    started=1_000_000_000.25,
    duration=1.5,
    mark="+",
    bytes_in=120,
    bytes_out=300,
    response_fields=Fields([("Content-Type", "text/plain")]),
    file_name="/srv/a b.txt",
    server_name="srv.example",
    number=3,
)
REFUSED = ENTRY._replace(request=None, status=400, mark="-", file_name="", number=0)


def line(form: str, entry: Entry = ENTRY, escaping: str = "default") -> str:
    return compile_format(form, escaping).line(entry)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%%", "%"),
        ("%h %a", "10.1.2.3 10.1.2.3"),
        ("%{mask}a", "10.1.2.0"),
        ("%A", "127.0.0.9"),
        ("%l", "-"),
        ("%u", "alice"),
        ("%r", "GET /a%20b.txt?q=%31 HTTP/1.1"),
        ("%m|%U|%q|%H", "GET|/a%20b.txt|q=1|HTTP/1.1"),
        ("%s %>s %<s", "200 200 200"),
        ("%b %B", "6 6"),
        ("%I %O", "120 300"),
        ("%D %T", "1500000 1"),
        ("%{s}T %{ms}T %{us}T %{ns}T", "1 1500 1500000 1500000000"),
        ("%V|%v", "site.example:8080|srv.example"),
        ("%p %{local}p %{canonical}p %{remote}p", "8080 8080 8080 99"),
        ("%f", "/srv/a b.txt"),
        ("%X %k", "+ 3"),
        ("%{USER-AGENT}i", r'ua \"q\"'),
        ("%{nope}i %{nope}o", "- -"),
        ("%{content-type}o", "text/plain"),
        ("%{E}e %{E}n", "- -"),
        ("%{k}C|%{l}C|%{nope}C|%C", "v|w||"),
        ("[%P]", "[]"),
        ("%{sec}t %{msec}t", "1000000000 1000000000250"),
        ("%{begin:msec_frac}t %{end:msec_frac}t", "250 750"),
        ("%{usec_frac}t %{nsec_frac}t", "250000 250000000"),
        ("a\\tb\\\\c\\x", "a\tb\\cx"),
        ("100%% of {x}", "100% of {x}"),
        ("%>%|%{x}%|", "%||"),
    ],
)
def test_each_code(form: str, expected: str) -> None:
    assert line(form) == expected + "\n"


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%t", "[09/Sep/2001:01:46:40 +0000]"),
        ("%{%Y-%m-%d %H:%M:%S}t", "2001-09-09 01:46:40"),
        ("%{begin:%S}t %{end:%S}t", "40 41"),
    ],
)
def test_times(form: str, expected: str) -> None:
    assert line(form) == expected + "\n"


def test_the_kept_second_is_not_kept_too_long() -> None:
    formatter = compile_format("%{%s}t")
    seconds = [1_000_000_000.0, 1_000_000_000.9, 1_000_000_001.0, 1_000_000_000.0]
    lines = [formatter.line(ENTRY._replace(started=second)) for second in seconds]
    assert lines == ["1000000000\n", "1000000000\n", "1000000001\n", "1000000000\n"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%r", "  "),
        ("%m|%U|%q|%H|%V|%u", "|||||-|-".replace("|||||", "||||")),
        ("%h %{remote}p", "127.0.0.1 4711"),
        ("%{X-A}i|%{k}C|%f", "-||-"),
    ],
)
def test_a_refused_head(form: str, expected: str) -> None:
    assert line(form, REFUSED) == expected + "\n"


def test_a_refused_head_shows_the_line_that_could_be_read() -> None:
    entry = REFUSED._replace(line=("GET", '/"x?y', "HTTP/1.1"))
    assert line("%r|%m|%U|%q|%H", entry) == 'GET /\\"x?y HTTP/1.1|GET|/\\"x|y|HTTP/1.1\n'


def test_environment_of_a_gateway() -> None:
    assert line("%{E}e", ENTRY._replace(environment=(("E", "1"), ("E", "2")))) == "2\n"


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("192.168.7.9", "192.168.7.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("", "-"),
    ],
)
def test_masked_address(address: str, masked: str) -> None:
    entry = ENTRY._replace(request=REQUEST._replace(remote=Address(address)))
    assert line("%{mask}a", entry) == masked + "\n"


@pytest.mark.parametrize(
    "form",
    ["", "%", "a%", "%z", "%S", "%R", "%L", "%!200s", "%200r", "%{x", "%{}i", "%{X-A}", "%{a}{b}i",
     "%>{X-A}i", "%{X-A}>i", "%<<s", "%{c}a", "%i", "%o", "%{foo}T", "%{foo}p", "%{foo}t",
     "%{end}t", "%{end:}t", "x\\"],
)  # fmt: skip
def test_what_is_not_a_format(form: str) -> None:
    with pytest.raises(ValueError):
        compile_format(form)


@pytest.mark.parametrize(
    ("form", "named"), [("%h %z", "%z"), ("%h %{foo}T x", "%{foo}T"), ("%h %{c}a", "%{c}a")]
)
def test_a_refusal_names_the_code(form: str, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        compile_format(form)


@pytest.mark.parametrize("vector", load("accesslog"), ids=vector_id)
def test_vectors_accesslog_formats(vector: dict) -> None:
    """Which formats are refused; what a line looks like is tested with a server."""
    form = vector["format"]
    if form is None:
        form = AccessLogSettings().format
    if vector.get("expect", {}).get("ok") is False and not vector.get("quirk"):
        with pytest.raises(ValueError):
            compile_format(form)
    else:
        assert compile_format(form).line(ENTRY).endswith("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text~", "plain text~"),
        ('a"b\\c', 'a\\"b\\\\c'),
        ("\b\t\n\f\r\v", "\\b\\t\\n\\f\\r\\v"),
        ("\x00\x1b\x7f\x80\xe9\xff", "\\x00\\x1B\\x7F\\x80\\xE9\\xFF"),
    ],
)
def test_default_escaping(text: str, expected: str) -> None:
    assert escape_default(text) == expected


def test_json_escaping_is_json_and_keeps_high_bytes() -> None:
    text = "".join(map(chr, range(256)))
    assert json.loads(f'"{escape_json(text)}"') == text
    assert escape_json("\xe9\xff") == "\xe9\xff"
    assert line('{"a":"%{User-Agent}i"}', escaping="json") == '{"a":"ua \\"q\\""}\n'


def saying(text: str) -> Entry:
    """An entry with *text* wherever something comes from outside."""
    request = REQUEST._replace(
        target=text, path=text, query=text, host=text, method=text,
        fields=Fields([("X", text), ("Cookie", f"k={text}")]),
        environment=(("REMOTE_USER", text),),
    )  # fmt: skip
    return ENTRY._replace(
        request=request, file_name=text, response_fields=Fields([("X", text)]),
        environment=(("X", text),),
    )  # fmt: skip


ARGUMENTS = {
    "a": ["", "{mask}"],
    "p": ["", "{remote}"],
    "t": ["", "{usec}", "{begin:%S %%}", "{end:usec}", "{end:%d %H:%M:%S %%}"],
    "T": ["", "{ms}", "{us}", "{ns}"],
    "i": ["{X}"],
    "o": ["{X}"],
    "e": ["{X}"],
    "n": ["{X}"],
    "C": ["{k}"],
}
"""For the codes that know some, what may stand between their braces."""


FORMS = [f"%{argument}{code}" for code in CODES for argument in ARGUMENTS.get(code, [""])]
"""Every code with each of them."""


def test_no_value_from_outside_ends_a_line() -> None:
    entry = saying("a\r\nb\x00")
    for form in FORMS:
        for escaping in ("default", "json"):
            if form == "%r":
                continue  # its method and version come from a closed list
            assert not re.search(r"[\r\x00]|\n.", line(form, entry, escaping)), form


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("k=v; l=w;m=x", "m", "x"),
        ("k=a=b", "k", "a=b"),
        ("kk=1; k=2", "k", "2"),
        ("k; l=w", "k", ""),
        ("", "k", ""),
    ],
)
def test_cookie(field: str, name: str, value: str) -> None:
    assert cookie(field, name) == value


# -- in two steps -----------------------------------------------------------------------------


def end_of(begun: str, entry: Entry = ENTRY) -> Ended:
    return Ended(
        begun=begun,
        status=entry.status,
        body_bytes=entry.body_bytes,
        bytes_in=entry.bytes_in,
        bytes_out=entry.bytes_out,
        duration=entry.duration,
        ended=entry.ended,
    )


PERCENT_SIGNS = ["100%", "%s%%d %(x)s", "%%%"]


@pytest.mark.parametrize("form", [*FORMS, "%%%b%%s %%%% %m%%%I", " ".join(FORMS)])
def test_a_line_in_two_steps_is_that_in_one(form: str) -> None:
    for text in ('a"b', *PERCENT_SIGNS):
        opened = saying(text)._replace(body_bytes=0, bytes_in=80, bytes_out=90, duration=0.25)
        whole = opened._replace(body_bytes=7000, bytes_in=8000, bytes_out=9000, duration=90_000.5)
        for escaping in ("default", "json"):
            compiled = compile_format(form, escaping)
            assert compiled.line(end_of(compiled.begin(opened), whole)) == compiled.line(whole)


@pytest.mark.parametrize("text", PERCENT_SIGNS)
def test_a_percent_sign_is_only_that(text: str) -> None:
    assert line("%{X}i 50%% %b%%b %U", saying(text)) == f"{text} 50% 6%b {text}\n"


# -- writing ----------------------------------------------------------------------------------


class Recorder:
    """A sink that keeps what it is given, and takes as much as it is told to."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, bytes]] = []
        self.syslog: list[tuple[int, str]] = []
        self.takes: int | None = None

    def append(self, name: str, data: bytes) -> int:
        taken = len(data) if self.takes is None else min(self.takes, len(data))
        if taken:
            self.writes.append((name, data[:taken]))
        return taken

    def to_syslog(self, priority: int, line: str) -> None:
        self.syslog.append((priority, line))


STATUS = AccessLogSettings(filename="/a.log", format="%s")


def test_lines_are_held_until_flush() -> None:
    sink = Recorder()
    logs = AccessLogs(sink)
    logs.write(STATUS, ENTRY)
    logs.write(replace(STATUS, format="%m"), ENTRY)
    logs.write(replace(STATUS, filename="/b.log"), ENTRY)
    assert sink.writes == []
    logs.flush()
    logs.flush()
    assert sink.writes == [("/a.log", b"200\nGET\n"), ("/b.log", b"200\n")]


def test_a_full_buffer_is_written_at_once_in_whole_lines() -> None:
    sink = Recorder()
    logs = AccessLogs(sink)
    settings = replace(STATUS, format="%s" + "x" * 96)
    for _ in range(FLUSH_SIZE // 100 + 1):
        logs.write(settings, ENTRY)
    [(name, data)] = sink.writes
    assert len(data) >= FLUSH_SIZE
    assert data.endswith(b"x\n")


def test_no_log_without_a_name() -> None:
    sink = Recorder()
    AccessLogs(sink).write(AccessLogSettings(), ENTRY)
    assert sink.writes == sink.syslog == []


def test_syslog() -> None:
    sink = Recorder()
    AccessLogs(sink).write(replace(STATUS, use_syslog=True, syslog_level=5), ENTRY)
    assert sink.syslog == [(5, "200")]


def test_a_line_begun_before_goes_where_its_settings_say() -> None:
    sink = Recorder()
    logs = AccessLogs(sink)
    file = AccessLogSettings(filename="/a.log", format="%m %b%%")
    syslog = replace(file, use_syslog=True, syslog_level=5)
    nowhere = replace(file, filename="")
    for settings in (file, syslog, nowhere):
        logs.write(settings, end_of(begin_line(settings, ENTRY)))
    logs.flush()
    assert begin_line(nowhere, ENTRY) == ""
    assert sink.writes == [("/a.log", b"GET 6%\n")]
    assert sink.syslog == [(5, "GET 6%")]


def test_high_bytes_are_written_as_they_came() -> None:
    sink = Recorder()
    logs = AccessLogs(sink)
    request = REQUEST._replace(fields=Fields([("X-A", "\xc3\xa9\xff")]))
    logs.write(
        replace(STATUS, format="%{X-A}i", escaping="json"), ENTRY._replace(request=request)
    )
    logs.flush()
    assert sink.writes == [("/a.log", b"\xc3\xa9\xff\n")]


def test_a_log_that_takes_a_part_gets_the_rest_later() -> None:
    sink = Recorder()
    logs = AccessLogs(sink)
    for _ in range(3):
        logs.write(STATUS, ENTRY)
    sink.takes = 4
    logs.flush()
    sink.takes = None
    logs.flush()
    assert sink.writes == [("/a.log", b"200\n"), ("/a.log", b"200\n200\n")]


def test_a_log_that_takes_nothing_does_not_fill_the_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Recorder()
    sink.takes = 0
    logs = AccessLogs(sink)
    settings = replace(STATUS, format="x" * 10_000)
    for _ in range(MAX_HELD // 10_000 + 2):
        logs.write(settings, ENTRY)
    assert "lines lost" in caplog.text
    sink.takes = None
    logs.flush()
    assert sum(len(data) for _, data in sink.writes) < MAX_HELD
