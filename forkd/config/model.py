"""The configuration as frozen values: what every other layer is given.

Times are seconds, sizes are bytes.  Text that is compared with or put into HTTP is Latin-1 ``str``
as in ``message``; fields that name files for the *process* (logs, pid file, sockets, programs) are
plain OS strings, said where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..address import Address
from ..uri import ParseOptions
from .backend import BackendSpec, Framing, GatewayServer
from .tls import CertificateFiles, TlsSpec

if TYPE_CHECKING:
    from ..message import Request
    from .conditions import ConditionSet
    from .substitution import RuleSet

MAX_MESSAGE_SIZE = 64 << 20  # bytes; where a message may have to be held until it is whole
MAX_VARIANTS = 1024  # requests choose the blocks that hold, so their combinations need a limit

RateAction = Literal["slow", "close"]
Severity = Literal["error", "warning", "note"]
Kind = Literal["", "missing-program", "missing-certificate"]
"""What an exit code may depend on (forkd(8))."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about the configuration, at a place in its text."""

    severity: Severity
    file: str
    line: int
    column: int
    text: str
    source: str = ""
    """The source line, for the caret below it."""
    kind: Kind = ""


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """One socket to bind.  Equal specs are the same listener across a reload."""

    address: Address
    """Resolved; the wildcard is 0.0.0.0 or ::.  Or inherited, by its name."""
    backlog: int = 4096
    v6only: bool = True
    socket_mode: int | None = None
    """Mode of a unix socket; None leaves it to the umask."""
    defer_accept: bool = False
    tls: TlsSpec | None = None
    is_implied: bool = field(default=False, compare=False)
    """The main listener where no ``server.bind`` asks for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Per request: what a client may send, and how long anybody may be silent (core.md 1, 3)."""

    max_request_size: int = 0
    """Bytes of body; 0: no limit."""
    max_keep_alive_requests: int = 1000
    max_keep_alive_idle: float = 5
    max_read_idle: float = 60
    max_write_idle: float = 360
    protocol_http11: bool = True
    stream_request_body: int = 0
    stream_response_body: int = 0


@dataclass(frozen=True, slots=True)
class ErrorSettings:
    """core.md 12."""

    errorfile_prefix: str = ""
    error_handler: str = ""
    error_handler_404: str = ""
    error_intercept: bool = False


@dataclass(frozen=True, slots=True)
class MimeTypes:
    """Suffix to type, in the order of the configuration (core.md 10.5)."""

    types: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """core.md 10."""

    mime_types: MimeTypes | None = None
    """None: the built-in table."""
    use_xattr: bool = False
    xattr_name: str = "user.Content-Type"
    index_files: tuple[str, ...] = ()
    exclude_extensions: tuple[str, ...] = ()
    etags: bool = True
    etag_use_inode: bool = True
    etag_use_mtime: bool = True
    etag_use_size: bool = True
    disable_pathinfo: bool = True
    range_requests: bool = True
    follow_symlink: bool = True
    force_lowercase_filenames: bool = False


@dataclass(frozen=True, slots=True)
class HookSettings:
    """What the pure hooks read (core.md 13, 14)."""

    access_deny: tuple[str, ...] = ()
    access_allow: tuple[str, ...] | None = None
    alias: tuple[tuple[str, str], ...] = ()
    redirect: RuleSet | None = None
    redirect_code: int = 0
    """0: 301 for GET and HEAD, 308 for other methods over HTTP/1.1 or later."""
    rewrite_once: RuleSet | None = None
    rewrite_repeat: RuleSet | None = None
    rewrite_if_not_file: RuleSet | None = None
    rewrite_repeat_if_not_file: RuleSet | None = None
    add_request_header: tuple[tuple[str, str], ...] = ()
    set_request_header: tuple[tuple[str, str], ...] = ()
    add_response_header: tuple[tuple[str, str], ...] = ()
    set_response_header: tuple[tuple[str, str], ...] = ()
    add_environment: tuple[tuple[str, str], ...] = ()
    set_environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WsDeflate:
    """``wstunnel.deflate`` (RFC 7692): a later block replaces it as a whole."""

    level: int = 6
    """zlib's: 1 is fast, 9 is small."""
    server_max_window_bits: int = 15
    """The window of what is sent, and with the next one that of what is received; at most."""
    client_max_window_bits: int = 15
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    min_size: int = 64
    """Bytes: a shorter message is sent as it is."""
    memory_limit: int = 0
    """Bytes for it in one worker, over which idle tunnels give some back; 0: no limit."""


@dataclass(frozen=True, slots=True)
class WsTunnelSettings:
    """``wstunnel.*`` beside ``wstunnel.server`` (wstunnel.md 1, 10)."""

    binary: bool = False
    """``frame-type``: whether frames sent are binary."""
    framing: Framing = "stream"
    """Of hosts that do not say it themselves; seqpacket is always said by the host."""
    origins: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] = ()
    """What is answered, the best first; empty: ``binary``."""
    ping_interval: float = 0
    pong_timeout: float = 0
    """0: twice the ping interval."""
    handshake_timeout: float = 10
    close_timeout: float = 2
    max_message_size: int | None = None
    """0: no limit.  None: that of the framing, see ``size_limits``."""
    max_frame_size: int | None = None
    """None: as ``max_message_size``."""
    max_message_rate: int = 0
    """Messages a second from one client; 0: no limit."""
    rate_action: RateAction = "slow"
    deflate: WsDeflate | None = None

    def size_limits(self, framing: Framing) -> tuple[int, int]:
        """Bytes of a message and of a frame from the client, where messages travel in *framing*;
        0: no limit."""
        message = self.max_message_size
        if message is None:
            message = 0 if framing == "stream" else MAX_MESSAGE_SIZE
        return message, message if self.max_frame_size is None else self.max_frame_size


@dataclass(frozen=True, slots=True)
class CgiLimits:
    """``cgi.limits`` (cgi.md 1, 7): a later block replaces it as a whole."""

    read_timeout: float = 0
    """0: none, like the next one."""
    write_timeout: float = 0
    tcp_fin_propagate: int = 0
    """Signal to the program when its client has half-closed; 0: none."""
    grace_timeout: float = 5
    """From the end of its input to SIGTERM, for a program that nobody waits for."""
    max_processes: int = 0
    """Programs that run at one time, over all workers; 0: no limit."""


@dataclass(frozen=True, slots=True)
class CgiSettings:
    """``cgi.*`` (cgi.md 1)."""

    assign: tuple[tuple[str, str], ...] = ()
    """Suffix of the file and its interpreter, "" to run the file itself; the first match wins."""
    execute_x_only: bool = False
    x_sendfile: bool = False
    x_sendfile_docroot: tuple[str, ...] = ()
    local_redir: bool = False
    upgrade: bool = False
    limits: CgiLimits = CgiLimits()


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """``proxy.header`` (proxy.md 1, 4): a later block replaces it as a whole."""

    upgrade: bool = False
    connect: bool = False
    force_http10: bool = False
    https_remap: bool = False
    map_host_request: tuple[tuple[str, str], ...] = ()
    map_host_response: tuple[tuple[str, str], ...] = ()
    map_urlpath: tuple[tuple[str, str], ...] = ()
    resp_host_include: tuple[str, ...] = ()
    """Authorities; empty: any."""
    resp_host_exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """``proxy.*`` beside ``proxy.server`` (proxy.md 1)."""

    forwarded: frozenset[str] = frozenset()
    """Which of ``for``, ``by``, ``proto``, ``host``, ``remote_user`` a Forwarded field tells."""
    header: ProxyHeader = ProxyHeader()
    replace_http_host: bool = False


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    """Where and how a request is logged (core.md 18.1); nowhere without filename and syslog."""

    filename: str = ""
    """OS string; ``|command`` pipes."""
    format: str = '%h %V %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"'
    escaping: Literal["default", "json"] = "default"
    use_syslog: bool = False
    syslog_level: int = 6

    @property
    def is_wanted(self) -> bool:
        return self.use_syslog or self.filename != ""


@dataclass(frozen=True, slots=True)
class DebugSettings:
    """``debug.log-*``: trace lines in the error log."""

    request_header: bool = False
    request_header_on_error: bool = False
    response_header: bool = False
    request_handling: bool = False
    condition_handling: bool = False
    file_not_found: bool = False
    timeouts: bool = False
    state_handling: bool = False


@dataclass(frozen=True, slots=True)
class RequestConfig:
    """Everything that holds for one request: the global values with those of the true blocks."""

    document_root: str = ""
    server_name: str = ""
    server_tag: str = ""
    """Value of the Server field; "" for none."""
    errorlog: str = ""
    """OS string, like ``breakagelog``."""
    breakagelog: str = ""
    limits: Limits = Limits()
    errors: ErrorSettings = ErrorSettings()
    static: StaticSettings = StaticSettings()
    hooks: HookSettings = HookSettings()
    wstunnel: WsTunnelSettings = WsTunnelSettings()
    cgi: CgiSettings = CgiSettings()
    proxy: ProxySettings = ProxySettings()
    scgi_protocol: Literal["scgi", "uwsgi"] = "scgi"
    access_log: AccessLogSettings = AccessLogSettings()
    debug: DebugSettings = DebugSettings()
    servers: tuple[GatewayServer, ...] = ()
    """In the order of ``server.modules``."""
    certificate: CertificateFiles = CertificateFiles()
    """What a TLS handshake shows; of a request only listener, host and client are known then."""


@dataclass(frozen=True, slots=True)
class Features:
    """``server.feature-flags`` that mean something here (core.md 1.1)."""

    h2proto: bool = True
    h2c: bool = False
    graceful_shutdown_timeout: float = 8
    absolute_dir_redirect: bool = False
    http_pathinfo: bool = True
    http10_range: bool = False
    upgrade_with_request_body: bool = False
    proxy_force_http10: bool = False
    trailer_whitelist: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Global-scope settings: what belongs to the server, not to a request.  Files: OS strings."""

    modules: tuple[str, ...] = ()
    """As listed, duplicates dropped, without the ``mod_`` prefix: the order of hooks."""
    port: int = 80
    bind: str = ""
    socket_activation: bool = False
    """Listeners take the sockets that a service manager hands over."""
    """As configured; what it came to is among the listeners."""
    username: str = ""
    groupname: str = ""
    chroot: str = ""
    pid_file: str = ""
    errorlog: str = ""
    errorlog_use_syslog: bool = False
    syslog_facility: str = "daemon"
    breakagelog: str = ""
    max_worker: int = 0
    """0: one for each CPU the process may run on."""
    max_fds: int = 0
    """0: the hard limit."""
    max_connections: int = 0
    """0: (max_fds - 64) / 2; per worker."""
    max_request_field_size: int = 8192
    upload_dirs: tuple[str, ...] = ("/var/tmp",)
    upload_temp_file_size: int = 1 << 20
    core_files: bool = False
    parse_options: ParseOptions = ParseOptions()
    features: Features = Features()
    worker_timeout: float = 60
    max_requests: int = 0
    """Of a worker before it is replaced; 0: any number."""
    max_requests_jitter: int = 0
    drain_timeout: float = 0
    """Seconds that the tunnels of a draining worker live on; 0: as long as they want."""
    drain_spread: float = 10
    """Seconds over which their ends are spread."""
    max_generations: int = 8
    http2_max_streams: int = 100
    """Requests and tunnels that one connection may have open."""


@dataclass(frozen=True)
class Config:
    """One load of the configuration. Pickles, so that a reload may load it in another process."""

    file: str
    """Real path of the main file (OS string), or "-"."""
    server: ServerSettings
    listeners: tuple[ListenerSpec, ...]
    backends: tuple[BackendSpec, ...]
    """Of every block, whether or not its condition will ever match; no two are equal."""
    base: RequestConfig
    """The global scope alone: what holds before a request is known."""
    conditions: ConditionSet
    blocks: tuple[Mapping[str, Any], ...] = field(default=({},), repr=False)
    """Per block what it sets: values by dotted field path of RequestConfig; see ``compose``."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Warnings and notes; errors raise ConfigError."""
    log_files: tuple[str, ...] = ()
    """What any block, whether or not its condition will ever match, names as ``server.errorlog``,
    ``server.breakagelog`` or ``accesslog.filename``: OS strings, ``|command`` too, each once."""
    _variants: dict[int, RequestConfig] = field(default_factory=dict, repr=False, compare=False)

    def select(self, request: Request) -> RequestConfig:
        """What holds for *request*.  Equal answers are mostly the same object.

        Cheap: the conditions give a bit mask, the mask a remembered value.  Raises PatternTooSlow.
        """
        mask = self.conditions.mask(request)
        variant = self._variants.get(mask)
        return self._variant(mask) if variant is None else variant

    def _variant(self, mask: int) -> RequestConfig:
        """The global values, replaced key by key by those of the true blocks (config.md 9.2)."""
        variant = self.base
        if mask != 1:
            values = dict(self.blocks[0])
            for index, own in enumerate(self.blocks[1:], start=1):
                if mask >> index & 1:
                    values |= own
            variant = compose(values, self.server.modules)
        if len(self._variants) >= MAX_VARIANTS:
            self._variants.clear()
        self._variants[mask] = variant
        return variant


def compose(values: Mapping[str, Any], modules: Sequence[str]) -> RequestConfig:
    """The RequestConfig with *values*, by dotted field path, in the places of the defaults.

    ``servers.NAME.FIELD`` stands for the field of a GatewayServer; there is one for each of
    *modules* that has routes.
    """
    plain, nested = _by_head(values)
    servers = _by_head(nested.pop("servers", {}))[1]
    plain["servers"] = tuple(
        with_values(GatewayServer(name, ()), servers[name])
        for name in modules
        if servers.get(name, {}).get("routes")
    )
    for name, inner in nested.items():
        plain[name] = with_values(getattr(_DEFAULT, name), inner)
    return replace(_DEFAULT, **plain)


_DEFAULT = RequestConfig()


def with_values(record: Any, values: Mapping[str, Any]) -> Any:
    """A copy of the dataclass instance *record* with *values*, by dotted field path."""
    plain, nested = _by_head(values)
    for name, inner in nested.items():
        plain[name] = with_values(getattr(record, name), inner)
    return replace(record, **plain)


def _by_head(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Values with a plain name, and the others by the first part of theirs."""
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        head, dot, rest = path.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = value
        else:
            plain[head] = value
    return plain, nested
