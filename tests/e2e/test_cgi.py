"""Programs behind cgi: what they are told, how their output is read, and how they end.

Tunnels, back-pressure and who outlives whom are in test_torture.py, for all gateways.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from collections.abc import Mapping

import psutil
import pytest
from e2e.harness import Forkd, Server, is_alive, wait_for
from e2e.rawhttp import Incomplete, Response

CONFIG = """
server.modules = ("mod_cgi", "mod_setenv", "mod_rewrite", "mod_accesslog")
server.max-worker = 1
server.tag = "tag"
accesslog.filename = "@DIR@/access.log"
index-file.names = ("index.cgi")
cgi.assign = (".py" => "/bin/cat", ".cgi" => "", ".none" => "/nonexistent/interpreter")
{}
"""

# Prints the file that the path info names: a response made to measure.
SAY = '#!/bin/sh\nexec cat "$PATH_TRANSLATED"\n'
# What the process was given, before the shell adds anything of its own.
ENVIRON = "#!/bin/sh\necho Content-Type: text/plain\necho\ncat /proc/$$/environ\n"
SHELL = "#!/bin/sh\n{}\n"


def start(forkd: Forkd, more: str = "", /, **programs: str) -> Server:
    """A server with *programs* in shell as ``NAME.cgi``."""
    files: dict[str, str | bytes] = {
        f"root/{name}.cgi": code if code.startswith("#!") else SHELL.format(code)
        for name, code in programs.items()
    }
    return forkd.start(CONFIG.format(more), files=files)


@pytest.fixture(scope="module")
def server(shared_forkd: Forkd) -> Server:
    """For the tests that leave it as it was."""
    shared_forkd.allow_errors("cgi ")
    return start(
        shared_forkd,
        'setenv.add-environment = ("X-Dash" => "set")\nserver.name = "named.example"',
        say=SAY,
        env=ENVIRON,
        stdin='echo; readlink /proc/$$/fd/0; echo; cat; echo " $CONTENT_LENGTH"',
        where='echo; pwd; ls /proc/$$/fd; echo "$0"',
        groups="echo; cut -d' ' -f1,5,6 /proc/$$/stat; exec grep Sig /proc/self/status",
    )


def environment(response: Response) -> dict[str, str]:
    assert response.status == 200, response.text
    pairs = [entry.split("=", 1) for entry in response.text.split("\0") if entry]
    return dict(pairs)


def shells(server: Server) -> list[psutil.Process]:
    """The programs that run now, with what they have started."""
    return [
        process
        for worker in server.workers()
        for process in worker.children(recursive=True)
        if is_alive(process)
    ]


# -- what a program is told -------------------------------------------------------------------


def test_the_environment_is_the_one_of_rfc_3875_and_in_order(server: Server) -> None:
    told = environment(
        server.get(
            "/env.cgi/more%20info?q=%41&r",
            Host=f"www.example:{server.port}",
            Content_Type="text/x",
            X_Test="a-b",
            Proxy="evil",
            Cookie="a=b",
        )  # fmt: skip
    )
    root, port = str(server.root), str(server.port)
    remote_port = told.pop("REMOTE_PORT")
    assert remote_port.isdigit()
    assert list(told.items()) == [
        ("CONTENT_LENGTH", "0"),
        ("QUERY_STRING", "q=A&r"),
        ("REQUEST_URI", "/env.cgi/more%20info?q=%41&r"),
        ("REDIRECT_URI", "/env.cgi/more%20info?q=A&r"),
        ("REDIRECT_STATUS", "200"),
        ("SCRIPT_NAME", "/env.cgi"),
        ("PATH_INFO", "/more info"),
        ("PATH_TRANSLATED", f"{root}/more info"),
        ("SCRIPT_FILENAME", f"{root}/env.cgi"),
        ("DOCUMENT_ROOT", root),
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", "tag"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("SERVER_PORT", port),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "named.example"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_HOST", f"www.example:{port}"),
        ("HTTP_CONNECTION", "close"),
        ("CONTENT_TYPE", "text/x"),
        ("HTTP_X_TEST", "a-b"),
        ("HTTP_COOKIE", "a=b"),
        ("X_DASH", "set"),
    ]


def test_bytes_of_the_environment_stay_bytes(server: Server) -> None:
    request = b"GET /env.cgi HTTP/1.0\r\nHost: a\r\nX-Bytes: \xe4\xff\r\n\r\n"
    answer = server.raw(request)
    assert b"\0HTTP_X_BYTES=\xe4\xff\0" in answer


def test_nothing_else_is_inherited(server: Server) -> None:
    """Neither variables nor descriptors nor the handling of signals."""
    told = environment(server.get("/env.cgi"))
    assert "PATH" not in told
    assert "FORKD_TEST" not in told
    folder, *descriptors, path = server.get("/where.cgi").text.splitlines()
    assert folder == str(server.root)
    assert {"0", "1", "2"} <= set(descriptors) <= {"0", "1", "2", "10"}  # 10: the script
    assert path == str(server.root / "where.cgi")
    ids, *masks = server.get("/groups.cgi").text.splitlines()
    pid, group, session = map(int, ids.split())
    assert group == pid
    assert session == server.workers()[0].pid
    assert "SigBlk:\t0000000000000000" in masks
    ignored = next(int(line.split()[1], 16) for line in masks if line.startswith("SigIgn"))
    assert ignored & 0x7FFFFFFF == 0


def test_fields_that_would_be_one_variable_are_refused(server: Server) -> None:
    with server.connect() as client:
        request = "GET /env.cgi HTTP/1.1\nHost: a\nX-A: 1\nX_A: 2\n\n"
        assert client.request(request).status == 400


def test_head_is_told_and_has_no_body(server: Server) -> None:
    with server.connect() as client:
        response = client.request("HEAD /env.cgi HTTP/1.1\nHost: a\n\n")
        assert (response.status, response.body) == (200, b"")
        assert client.request("GET /env.cgi HTTP/1.1\nHost: a\n\n").status == 200


def test_an_interpreter_gets_the_file(server: Server) -> None:
    (server.root / "x.py").write_text("Content-Type: text/x\n\nprinted by cat\n")
    response = server.get("/x.py")
    assert (response.field("Content-Type"), response.text) == ("text/x", "printed by cat\n")


def test_index_files_may_be_programs(server: Server) -> None:
    folder = server.root / "folder"
    folder.mkdir()
    (folder / "index.cgi").symlink_to(server.root / "env.cgi")
    told = environment(server.get("/folder/"))
    assert told["SCRIPT_NAME"] == "/folder/index.cgi"
    assert told["REQUEST_URI"] == "/folder/"


# -- the request's body -----------------------------------------------------------------------


def test_without_a_body_there_is_nothing_to_read(server: Server) -> None:
    assert server.get("/stdin.cgi").text == "/dev/null\n\n 0\n"


@pytest.mark.parametrize("size", [1, 65536, 300_000])
def test_a_body_is_read_to_its_end(server: Server, size: int) -> None:
    body = os.urandom(size)
    request = f"POST /stdin.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
    with server.connect() as client:
        client.send(request.encode() + body)
        answer = client.response().body
        assert answer.startswith(b"pipe:")
        assert answer.endswith(body + f" {size}\n".encode())


def test_a_chunked_body_is_counted_first(server: Server) -> None:
    request = "POST /stdin.cgi HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n"
    with server.connect() as client:
        response = client.request(request + "3\nabc\n1\nd\n0\n\n")
        assert response.text.endswith("\nabcd 4\n")


def test_a_program_need_not_read_its_body(server: Server) -> None:
    (server.root / "answer").write_text("\nnot read")
    body = bytes(1 << 20)
    request = f"POST /say.cgi/answer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with server.connect() as client:
        for _ in range(2):
            client.send(request.encode() + body)
            assert client.response().text == "not read"


def test_streamed_bodies_must_say_their_length(forkd: Forkd) -> None:
    server = start(forkd, "server.stream-request-body = 1", stdin="echo; cat")
    head = "POST /stdin.cgi HTTP/1.1\nHost: a\n"
    with server.connect() as client:
        request = f"{head}Content-Length: 3\n\nabc"
        assert client.request(request).text == "abc"
        assert client.request(f"{head}Transfer-Encoding: chunked\n\n0\n\n").status == 411


# -- the response -----------------------------------------------------------------------------


def said(server: Server, output: str | bytes) -> Response:
    """What becomes of *output*."""
    data = output.encode("latin-1") if isinstance(output, str) else output
    (server.root / "output").write_bytes(data)
    return server.get("/say.cgi/output")


@pytest.mark.parametrize(
    ("output", "status", "body"),
    [
        ("Content-Type: text/x\n\nbody", 200, "body"),
        ("Content-Type: text/x\r\n\r\nbody\n\n", 200, "body\n\n"),
        ("Status: 404\n\nnone", 404, "none"),
        ("Status: 299 Mine\n\n", 299, ""),
        ("HTTP/1.1 207 X\nA: b\n\nparsed", 207, "parsed"),
        ("HTTP/1.0 200 OK\n\nold", 200, "old"),
        ("\nno fields", 200, "no fields"),
        ("no colon\nat all", 200, "no colon\nat all"),
        ("words", 200, "words"),
        ("Content-Length: 3\n\nabcdef", 200, "abc"),
        ("Transfer-Encoding: chunked\n\n3\nabc\n0\n\n", 200, "abc"),
        ("Status: 204\n\ndropped", 204, ""),
    ],
)
def test_output_that_is_a_response(server: Server, output: str, status: int, body: str) -> None:
    response = said(server, output)
    assert (response.status, response.text) == (status, body)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "Content-Type: text/x\n",
        "Status: 99\n\n",
        "Status: abc\n\n",
        "HTTP/2 200\n\n",
        "Content-Length: x\n\n",
        "Transfer-Encoding: gzip\n\n",
        f"X: {'x' * 70_000}\n\n",
        "Status: 101\nUpgrade: x\n\n",
        "Content-Length: 9\n\nshort",
    ],
)
def test_output_that_is_none(server: Server, output: str) -> None:
    assert said(server, output).status == 502


def test_an_interim_response_comes_first(server: Server) -> None:
    (server.root / "interim").write_text("Status: 103\nLink: x\n\nStatus: 200\nA: b\n\nfinal")
    with server.connect() as client:
        client.send(b"GET /say.cgi/interim HTTP/1.1\r\nHost: a\r\n\r\n")
        early = client.response()
        assert (early.status, early.field("Link")) == (103, "x")
        assert client.response().text == "final"


def test_what_a_redirect_says_is_passed_on(server: Server) -> None:
    response = said(server, "Location: /elsewhere\n\n")
    assert (response.status, response.field("Location")) == (302, "/elsewhere")
    assert said(server, "Location: x\nStatus: 301\n\n").status == 301


def test_a_death_in_the_middle_does_not_look_like_an_end(forkd: Forkd) -> None:
    code = "printf 'Content-Type: a/b\\n\\nsome'; kill -9 $$"
    more = '$HTTP["url"] == "/dies.cgi" { server.stream-response-body = 1 }'
    server = start(forkd, more, dies=code, buffered=code)
    with server.connect() as client, pytest.raises((Incomplete, ConnectionResetError)):
        client.send(b"GET /dies.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
        client.response()
    server.wait_log(r"cgi \S+/dies\.cgi pid \d+: died, signal 9 \(SIGKILL\)")
    assert server.get("/buffered.cgi").status == 502


def test_an_exit_status_means_nothing(forkd: Forkd) -> None:
    server = start(forkd, fails="echo; echo fine; exit 3")
    assert server.get("/fails.cgi").text == "fine\n"


@pytest.mark.parametrize(
    ("output", "status", "told"),
    [
        ("Location: /env.cgi/x?from=%41\n\n", 200, {"QUERY_STRING": "from=A", "PATH_INFO": "/x"}),
        ("Location: /env.cgi\nX: y\n\n", 302, {}),
        ("Location: /env.cgi\n\nbody", 302, {}),
        ("Location: /env.cgi\nStatus: 302\n\n", 302, {}),
        ("Location: http://a/env.cgi\n\n", 302, {}),
    ],
)
def test_local_redirects(forkd: Forkd, output: str, status: int, told: Mapping[str, str]) -> None:
    server = start(forkd, 'cgi.local-redir = "enable"', say=SAY, env=ENVIRON)
    response = said(server, output)
    assert response.status == status
    if told:
        found = environment(response)
        assert {name: found[name] for name in told} == told
        assert found["REQUEST_URI"] == "/say.cgi/output"
        assert found["REDIRECT_URI"] == "/env.cgi/x?from=A"


def test_redirects_without_end(forkd: Forkd) -> None:
    code = 'printf "Location: /loop.cgi$PATH_INFO/x\\n\\n"'
    other = 'printf "Location: /other.cgi\\n\\n"'
    back = 'printf "Location: /ping.cgi\\n\\n"'
    server = start(forkd, 'cgi.local-redir = "enable"', loop=code, ping=other, other=back)
    assert server.get("/loop.cgi").status == 302  # to itself: the client is to see it
    forkd.allow_errors("run again")
    assert server.get("/ping.cgi").status == 500


def test_files_in_place_of_output(forkd: Forkd) -> None:
    more = 'cgi.x-sendfile = "enable"\ncgi.x-sendfile-docroot = ("@ROOT@/free")\n'
    server = start(forkd, more, say=SAY)
    (server.root / "free").mkdir()
    (server.root / "free" / "file").write_text("the file")
    path = f"{server.root}/free/file"
    response = said(server, f"X-Sendfile: {path}\nContent-Type: a/b\nContent-Length: 3\n\nabc")
    assert (response.status, response.text) == (200, "the file")
    assert response.field("Content-Type") == "a/b"
    assert response.field("X-Sendfile") is None
    assert said(server, f"X-Sendfile: {path}/../../output\n\n").status == 403
    assert said(server, f"X-Sendfile: {path}.none\n\n").status == 404


# -- which file is a program ------------------------------------------------------------------


def test_only_what_may_be_executed(forkd: Forkd) -> None:
    server = start(forkd, 'cgi.execute-x-only = "enable"', say=SAY)
    (server.root / "source.cgi").write_text("source")
    assert server.get("/source.cgi").text == "source"
    assert said(server, "\nrun").text == "run"


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("source.cgi", b"#!/bin/sh\n", 0o644),
        ("format.cgi", b"no program", 0o755),
        ("broken.cgi", b"#!/nonexistent\n", 0o755),
        ("x.none", b"", 0o644),
    ],
)
def test_what_cannot_be_executed_is_500(
    server: Server, name: str, content: bytes, mode: int
) -> None:
    file = server.root / name
    file.write_bytes(content)
    file.chmod(mode)
    before = len(os.listdir(f"/proc/{server.workers()[0].pid}/fd"))
    for _ in range(3):
        assert server.get(f"/{name}").status == 500
    server.wait_log(f"{re.escape(name)}: (Permission denied|No such file|Exec format)")
    assert shells(server) == []
    wait_for(lambda: len(os.listdir(f"/proc/{server.workers()[0].pid}/fd")) <= before)


def test_missing_files_and_folders_are_not_run(server: Server) -> None:
    assert server.get("/none.cgi").status == 404
    (server.root / "dir.cgi").mkdir()
    assert server.get("/dir.cgi").status == 301


# -- standard error ---------------------------------------------------------------------------


def test_standard_error_goes_to_the_error_log_line_by_line(forkd: Forkd) -> None:
    server = start(forkd, loud="echo; echo one >&2; printf 'two\\nthree' >&2; echo $$")
    pid = server.get("/loud.cgi").text.strip()
    name = rf"warning: cgi {server.root}/loud\.cgi pid {pid}: "
    for line in ("one", "two", "three"):
        server.wait_log(f"{name}{line}$")


def test_standard_error_goes_raw_to_the_breakage_log(forkd: Forkd) -> None:
    more = 'server.breakagelog = "@DIR@/breakage.log"\n'
    server = start(forkd, more, loud="echo; printf 'one\\ntwo' >&2")
    assert server.get("/loud.cgi").status == 200
    assert (server.directory / "breakage.log").read_text() == "one\ntwo"


# -- limits -----------------------------------------------------------------------------------


def limits(**members: int | str) -> str:
    pairs = ", ".join(f'"{name.replace("_", "-")}" => "{v}"' for name, v in members.items())
    return f"cgi.limits = ( {pairs} )\n"


def ask(server: Server, path: str) -> socket.socket:
    """A connection on which *path* was asked for, by a client that waits."""
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return client


def test_so_many_programs_and_no_more(forkd: Forkd) -> None:
    server = start(forkd, limits(max_processes=1, grace_timeout=0), waits="sleep 60")
    with ask(server, "/waits.cgi"):
        wait_for(lambda: shells(server), what="the program")
        refused = server.get("/waits.cgi")
        assert (refused.status, refused.field("Retry-After")) == (503, "1")
    wait_for(lambda: not shells(server), what="no program")
    with ask(server, "/waits.cgi"):
        wait_for(lambda: shells(server), what="another program")


def test_a_silent_program_is_504_and_ended_at_once(forkd: Forkd) -> None:
    more = limits(read_timeout=1, grace_timeout=60)
    server = start(forkd, more, waits="sleep 60 & wait")
    assert server.get("/waits.cgi").status == 504
    wait_for(lambda: not shells(server), 3, "no program")


def test_a_program_that_does_not_read_its_body_is_504(forkd: Forkd) -> None:
    server = start(forkd, limits(write_timeout=1), waits="exec sleep 60")
    body = bytes(300_000)
    head = f"POST /waits.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with server.connect() as client:
        client.send(head.encode() + body)
        assert client.response().status == 504
    wait_for(lambda: not shells(server), 3, "no program")


def test_the_clients_end_may_be_a_signal(forkd: Forkd) -> None:
    code = "trap 'echo; echo interrupted; exit' INT; sleep 60 >&- & wait"
    server = start(forkd, limits(tcp_fin_propagate="SIGINT"), waits=code)
    with server.connect() as client:
        client.send(b"GET /waits.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        wait_for(lambda: len(shells(server)) == 2, what="the program")
        client.send_eof()
        assert client.response().text == "interrupted\n"


def test_a_client_that_is_done_sending_gets_its_answer(forkd: Forkd) -> None:
    code = "sleep 0.3; echo; echo late; sleep 60; echo too late"
    more = limits(grace_timeout=1) + "server.stream-response-body = 1\n"
    server = start(forkd, more, late=code)
    with server.connect() as client:
        client.send(b"GET /late.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
        client.send_eof()
        with pytest.raises(Incomplete):  # silent for longer than the grace time
            client.response()
        assert client.unread.endswith(b"\r\n\r\n5\r\nlate\n\r\n")
    wait_for(lambda: not shells(server), what="no program")


# -- programs end -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leaves", "resets"])
def test_a_program_whose_client_has_gone_may_tidy_up(forkd: Forkd, how: str) -> None:
    """It may go on writing meanwhile: nobody reads that, and it does not hurt."""
    code = """
        trap 'for n in 1 2 3 4 5; do head -c 99999 /dev/zero; done; echo tidy > tidied; exit' TERM
        sleep 60 & wait
    """
    server = start(forkd, limits(grace_timeout=1), waits=code)
    client = ask(server, "/waits.cgi")
    wait_for(lambda: len(shells(server)) == 2, what="the program")
    if how == "resets":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: not shells(server), 5, "no program")
    assert (server.root / "tidied").read_text() == "tidy\n"


def test_a_program_that_closes_its_output_and_lives_on_gets_the_grace_time(forkd: Forkd) -> None:
    code = "echo; echo done; exec >&-; trap 'echo ended > ended; exit' TERM; sleep 60 & wait"
    server = start(forkd, limits(grace_timeout=1), closes=code)
    assert server.get("/closes.cgi").text == "done\n"
    assert len(shells(server)) == 2
    wait_for(lambda: not shells(server), 5, "no program")
    assert (server.root / "ended").exists()


def test_output_goes_on_when_its_program_has_ended(forkd: Forkd) -> None:
    server = start(forkd, leaves="echo; (sleep 0.3; echo from a child) &")
    assert server.get("/leaves.cgi").text == "from a child\n"


def test_what_a_killed_worker_leaves_is_ended_by_the_master(forkd: Forkd) -> None:
    forkd.allow_errors("worker .* died")
    code = "trap 'echo told > told; exit' TERM; sleep 60 & wait"
    server = start(forkd, waits=code, stubborn="trap '' TERM; sleep 60")
    clients = [ask(server, "/waits.cgi"), ask(server, "/stubborn.cgi")]
    found = wait_for(lambda: (p := shells(server)) and len(p) == 4 and p, what="the programs")
    server.workers()[0].kill()
    wait_for(lambda: not any(map(is_alive, found)), what="no program")
    assert (server.root / "told").exists()
    assert len(re.findall("left program", server.error_log())) == 2
    for client in clients:
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_ends_all_programs(forkd: Forkd, number: signal.Signals) -> None:
    more = 'server.feature-flags = ("server.graceful-shutdown-timeout" => 1)\n'
    server = start(forkd, more, waits="trap '' TERM; sleep 60")
    with ask(server, "/waits.cgi"):
        found = wait_for(lambda: (p := shells(server)) and len(p) == 2 and p, what="the program")
        server.stop(number)
        assert not any(map(is_alive, found))


def test_an_answer_under_way_is_finished_before_a_stop(forkd: Forkd) -> None:
    server = start(forkd, slow="echo; sleep 1; echo finished")
    with server.connect() as client:
        client.send(b"GET /slow.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: shells(server), what="the program")
        server.master().terminate()
        assert client.response().text == "finished\n"


def test_programs_are_counted(forkd: Forkd) -> None:
    server = start(forkd, limits(grace_timeout=0), waits="exec sleep 60")
    with ask(server, "/waits.cgi"), ask(server, "/waits.cgi"):
        wait_for(lambda: counted(server) == 2, what="two programs")
    wait_for(lambda: counted(server) == 0, what="none")


def counted(server: Server) -> int:
    (worker,) = server.status()["workers"]
    return int(worker["cgi_programs"])


def test_the_log_of_requests_knows_the_environment(forkd: Forkd) -> None:
    server = start(forkd, 'accesslog.format = "%{SCRIPT_NAME}e"', env=ENVIRON)
    assert server.get("/env.cgi/x").status == 200
    assert wait_for(server.access_log) == ["/env.cgi"]
