"""The server's side of an HTTP/2 connection, round ``h2``; pure: bytes in, calls and bytes out.

Who does what (RFC 9113 leaves a server to choose what is an error of a stream and what of all):

    the walker      frames: sizes, padding, field blocks in one piece (``h2_frames``)
    here            which stream errors and which connection errors; DATA, in both directions, and
                    every window; GOAWAY; PING; what is too much (``h2_guards``)
    h2              the states of streams, SETTINGS, encoding of fields and their frames

``h2`` hears of a stream only when its fields are in order, and of DATA only that they have ended.
It takes for a connection error what need be one of a stream, it counts out a connection's window
for one stalled upload, and it would speak no more once a GOAWAY has gone either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import h2.config
import h2.connection
import h2.exceptions
import h2.settings
from hpack import HPACKError, OversizedHeaderListError

from ..message import Pair
from .h2_fields import H2Head, check_trailers, read_fields
from .h2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionBroken,
    ErrorCode,
    FrameWalker,
    StreamBroken,
    data_head,
    frame,
    goaway,
    rst_stream,
    settings,
    stream_id,
    uint32,
    window_update,
)
from .h2_guards import Guards
from .h2_priority import DEFAULT, Priority, parse_priority
from .tunnel import Buffer

CONNECTION_WINDOW = 1 << 20  # bytes that a client may send before it is told to go on
STREAM_WINDOW = 65536
CREDIT = 16384  # bytes that are worth a WINDOW_UPDATE of a stream
MAX_FIELDS = 65535  # bytes of one request's fields, decoded; more is an attack
MAX_STREAM = 0x7FFFFFFF
MAX_WINDOW = 0x7FFFFFFF
_ENCODER_TABLE = 4096  # bytes; a client may offer more
_REMEMBERED = 512  # streams that are over, of which it is known how

SETTINGS_OF_OURS = {
    4: STREAM_WINDOW,  # INITIAL_WINDOW_SIZE
    6: MAX_FIELDS,  # MAX_HEADER_LIST_SIZE
    8: 1,  # ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3)
    9: 1,  # NO_RFC7540_PRIORITIES (RFC 9218 section 2.1)
}
_MAX_CONCURRENT_STREAMS = 3


class StreamListener(Protocol):
    """Who hears a stream."""

    def on_data(self, data: Buffer) -> None:
        """Valid during the call.  What is taken is to be credited (``Http2.credit``)."""

    def on_end(self) -> None:
        """END_STREAM: the client will send nothing more."""

    def on_reset(self, why: str) -> None:
        """The stream is over, by either side; nothing can be sent."""


class ConnectionListener(Protocol):
    """Who hears the connection."""

    def on_request(self, stream: Stream, head: H2Head) -> StreamListener:
        """A new stream; *stream* has no listener yet."""

    def on_window(self) -> None:
        """More may be sent, on one stream or on all."""

    def on_ping(self, data: bytes) -> None:
        """A PING of ours is answered."""

    def on_goaway(self) -> None:
        """The client will open no more streams."""


class Stream:
    """One stream that is not over."""

    __slots__ = (
        "has_ended", "id", "is_answered", "is_tunnel", "left", "listener", "owed", "priority",
        "sends", "state", "trailers", "window",
    )  # fmt: skip

    def __init__(self, number: int, state: Any, is_tunnel: bool, left: int | None) -> None:
        self.id = number
        self.state = state
        """h2's; its ``outbound_flow_control_window`` is what may be sent."""
        self.is_tunnel = is_tunnel
        self.left = left
        """Bytes that content-length has announced and that have not come; None: not known."""
        self.listener: StreamListener = _NOBODY
        self.has_ended = False
        """The client has sent END_STREAM."""
        self.sends = True
        """We have not."""
        self.is_answered = False
        self.window = STREAM_WINDOW
        """Bytes that the client may send."""
        self.owed = 0
        """Bytes taken for which it has got no credit yet."""
        self.trailers: Sequence[Pair] = ()
        self.priority = DEFAULT


class _Nobody:
    def on_data(self, data: Buffer) -> None: ...
    def on_end(self) -> None: ...
    def on_reset(self, why: str) -> None: ...


_NOBODY = _Nobody()


class _Decoded:
    """Stands where h2's decoder was: fields are decoded, and checked, before h2 hears of them.

    All that it needs to be told is that there are some.
    """

    max_header_list_size = max_allowed_table_size = 0

    def decode(self, data: bytes, raw: bool) -> list[tuple[bytes, bytes]]:
        return []


class Http2:
    """One connection.  ``receive`` is fed; ``take`` gives what is to be written.

    A stream that ``on_request`` announced is answered by ``respond``, ``send``, ``end``, or else
    ``reset``; none of these may be called once it is over.
    """

    def __init__(self, listener: ConnectionListener, max_streams: int, max_fields: int) -> None:
        """*max_streams* at one time; more than *max_fields* bytes of fields are a 431."""
        self.streams: dict[int, Stream] = {}
        self.highest = 0
        """The last stream that the client has opened."""
        self.error: ConnectionBroken | None = None
        """The end of the connection: what ``take`` gives is the last."""
        self._listener = listener
        self._max_streams = max_streams
        self._max_fields = max_fields
        self._walker = FrameWalker(self._frame, self._depends_on_itself)
        self._guards = Guards()
        self._preface = bytearray()
        self._has_begun = False  # h2 has been told of the preface
        self._h2 = _quiet_h2()
        self._decoder = self._h2.decoder
        self._decoder.max_header_list_size = MAX_FIELDS
        self._h2.decoder = _Decoded()
        self._window = CONNECTION_WINDOW
        self._owed = 0
        self._over: dict[int, bool] = {}  # stream to whether we have reset it
        self._early_priorities: dict[int, Priority] = {}
        self._self_dependent = 0
        self._last: int | None = None  # of our GOAWAY
        ours = {_MAX_CONCURRENT_STREAMS: max_streams, **SETTINGS_OF_OURS}
        self._out = bytearray(settings(ours))
        self._out += window_update(0, CONNECTION_WINDOW - 65535)

    # -- what comes in ------------------------------------------------------------------------

    def receive(self, data: Buffer) -> None:
        """Bytes of the client, the preface first.  Errors are answered, and show in ``error``."""
        if self.error is not None:
            return
        try:
            if len(self._preface) < len(PREFACE):
                data = self._skip_preface(data)
            self._walker.feed(data)
        except ConnectionBroken as broken:
            self._fail(broken)

    def upgrade(self, theirs: bytes, head: H2Head) -> None:
        """The connection was one of HTTP/1.1: *theirs* is the payload of the client's SETTINGS,
        and *head* has been asked for, as stream 1 (RFC 7540 section 3.2)."""
        try:
            self._begin_h2()
            if len(theirs) % 6:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "bad HTTP2-Settings")
            before = len(self._out)
            self._tell_h2(frame(SETTINGS, 0, 0, theirs))
            del self._out[before:]  # the 101 has acknowledged them
        except ConnectionBroken as broken:
            self._fail(broken)
            return
        self.highest = 1
        self._begin_stream(END_STREAM, 1, head)

    def _begin_h2(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._h2.receive_data(PREFACE)

    def _skip_preface(self, data: Buffer) -> Buffer:
        missing = len(PREFACE) - len(self._preface)
        self._preface += data[:missing]
        if not PREFACE.startswith(self._preface):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "bad preface")
        if len(self._preface) == len(PREFACE):
            self._begin_h2()
        return data[missing:]

    def _fail(self, broken: ConnectionBroken) -> None:
        self.error = broken
        self._out += goaway(self.highest, broken.code)

    def _frame(self, kind: int, flags: int, number: int, payload: Buffer, size: int) -> None:
        try:
            if kind == DATA:
                self._receive_data(flags, number, payload, size)
            elif kind == HEADERS:
                self._receive_headers(flags, number, payload)
            elif kind == WINDOW_UPDATE:
                self._receive_window_update(number, uint32(payload) & MAX_WINDOW)
            elif kind == RST_STREAM:
                self._receive_reset(number, uint32(payload))
            else:
                self._guards.idle()
                self._receive_other(kind, flags, number, payload)
        except StreamBroken as broken:
            self._break(number, broken)

    def _break(self, number: int, broken: StreamBroken) -> None:
        """A stream error: the client has caused it, and there is somebody who should know."""
        stream = self.streams.get(number)
        if stream is not None:
            self.reset(stream, broken.code)
            stream.listener.on_reset(str(broken))
        else:
            self._out += rst_stream(number, broken.code)
            self._remember(number, True)
        self._guards.provoked()

    # -- DATA (section 6.1) -------------------------------------------------------------------

    def _receive_data(self, flags: int, number: int, payload: Buffer, size: int) -> None:
        # The connection's window is for all: nobody's slowness may use it up.
        self._window -= size
        if self._window < 0:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "connection's window overrun")
        self._owed += size
        if self._owed >= CONNECTION_WINDOW // 2:
            self._out += window_update(0, self._owed)
            self._window += self._owed
            self._owed = 0
        stream = self.streams.get(number)
        if stream is None:
            self._receive_late_data(number)
            return
        length = len(payload)
        self._check_data(stream, size, length)
        if length:
            self._guards.moved()
            if length != size:
                self.credit(stream, size - length)
            stream.listener.on_data(payload)
        elif not flags & END_STREAM:
            self._guards.empty_data()
            self.credit(stream, size)
        if flags & END_STREAM and number in self.streams:
            self._ended(stream)

    def _receive_late_data(self, number: int) -> None:
        if number > self.highest:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {number}")
        if not self._over.get(number, self._last is not None):
            raise StreamBroken(ErrorCode.STREAM_CLOSED, "DATA behind the end")

    def _check_data(self, stream: Stream, size: int, length: int) -> None:
        if stream.has_ended:
            raise StreamBroken(ErrorCode.STREAM_CLOSED, "DATA behind END_STREAM")
        stream.window -= size
        if stream.window < 0:
            raise StreamBroken(ErrorCode.FLOW_CONTROL_ERROR, "stream's window overrun")
        if stream.left is not None:
            stream.left -= length
            if stream.left < 0:
                raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "body longer than content-length")

    def _ended(self, stream: Stream) -> None:
        if stream.left:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "body shorter than content-length")
        stream.has_ended = True
        self._tell_h2(frame(DATA, END_STREAM, stream.id))
        self._forget_if_over(stream)
        stream.listener.on_end()

    # -- HEADERS (section 6.2) ----------------------------------------------------------------

    def _depends_on_itself(self, number: int) -> None:
        self._self_dependent = number

    def _receive_headers(self, flags: int, number: int, block: Buffer) -> None:
        fields = self._decode(block)  # refused ones too: what they say of the table holds
        self_dependent, self._self_dependent = self._self_dependent, 0
        if not number & 1:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {number}")
        stream = self.streams.get(number)
        if stream is not None:
            self._receive_trailers(flags, stream, fields)
        elif number <= self.highest:
            self._receive_late_headers(number)
        else:
            self.highest = number
            self._open(flags, number, fields, self_dependent == number)

    def _decode(self, block: Buffer) -> list[tuple[bytes, bytes]]:
        try:
            fields: list[tuple[bytes, bytes]] = self._decoder.decode(bytes(block), raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        except (HPACKError, IndexError, TypeError, ValueError) as error:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        return fields

    def _receive_trailers(
        self, flags: int, stream: Stream, fields: list[tuple[bytes, bytes]]
    ) -> None:
        if stream.has_ended:
            raise StreamBroken(ErrorCode.STREAM_CLOSED, "HEADERS behind END_STREAM")
        if stream.is_tunnel or not flags & END_STREAM:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "HEADERS that are no trailers")
        check_trailers(fields)
        stream.trailers = [(str(name, "latin-1"), str(text, "latin-1")) for name, text in fields]
        self._ended(stream)

    def _receive_late_headers(self, number: int) -> None:
        if number not in self._over:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"stream {number} opened too late")
        if not self._over[number]:
            raise ConnectionBroken(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {number}")

    def _open(
        self, flags: int, number: int, fields: list[tuple[bytes, bytes]], depends_on_itself: bool
    ) -> None:
        if self._last is not None and number > self._last:
            self._guards.discarded()
            self._remember(number, True)
            return
        self._guards.opened(number)
        if len(self.streams) >= self._max_streams:
            self._refuse(number)
            return
        if depends_on_itself:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "stream that depends on itself")
        head = read_fields(fields, self._max_fields)
        if flags & END_STREAM and head.length and head.head.method != "CONNECT":
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "body shorter than content-length")
        self._begin_stream(flags, number, head)

    def _begin_stream(self, flags: int, number: int, head: H2Head) -> None:
        self._tell_h2(frame(HEADERS, flags & END_STREAM | END_HEADERS, number))
        is_tunnel = head.head.method == "CONNECT"
        left = None if is_tunnel else head.length
        stream = Stream(number, self._h2.streams[number], is_tunnel, left)
        stream.has_ended = bool(flags & END_STREAM)
        stream.priority = self._first_priority(number, head)
        self.streams[number] = stream
        stream.listener = self._listener.on_request(stream, head)
        if stream.has_ended and number in self.streams:
            stream.listener.on_end()

    def _refuse(self, number: int) -> None:
        self._out += rst_stream(number, ErrorCode.REFUSED_STREAM)
        self._remember(number, True)
        if self._guards.refused():
            self._ask_to_leave()

    def _ask_to_leave(self) -> None:
        if self._last is None:
            self.go_away(self.highest)
            self._listener.on_goaway()

    def _first_priority(self, number: int, head: H2Head) -> Priority:
        """A PRIORITY_UPDATE that came before counts more than the field (RFC 9218 section 7)."""
        early = self._early_priorities.pop(number, None)
        if early is not None:
            return early
        said = [value for name, value in head.head.fields if name == "priority"]
        return parse_priority(",".join(said)) if said else DEFAULT

    # -- the other frames ---------------------------------------------------------------------

    def _receive_window_update(self, number: int, increment: int) -> None:
        self._guards.idle()
        target: Any
        if number:
            stream = self._known(number, "WINDOW_UPDATE")
            if stream is None:
                return
            target = stream.state
            error: type[ConnectionBroken | StreamBroken] = StreamBroken
        else:
            target, error = self._h2, ConnectionBroken
        if not increment:
            raise error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        target.outbound_flow_control_window += increment
        if target.outbound_flow_control_window > MAX_WINDOW:
            raise error(ErrorCode.FLOW_CONTROL_ERROR, "window of more than 2^31-1")
        self._listener.on_window()

    def _receive_reset(self, number: int, code: int) -> None:
        stream = self._known(number, "RST_STREAM")
        if stream is None:
            return
        self._tell_h2(rst_stream(number, code))
        self._forget(stream, by_us=False)
        stream.listener.on_reset(f"reset by the client, {_name(code)}")
        if self._guards.reset_by_client(stream.is_answered):
            self._ask_to_leave()

    def _known(self, number: int, what: str) -> Stream | None:
        """The stream, None when it is over."""
        if number > self.highest or not number & 1:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {number}")
        return self.streams.get(number)

    def _receive_other(self, kind: int, flags: int, number: int, payload: Buffer) -> None:
        if kind == SETTINGS:
            self._receive_settings(flags, payload)
        elif kind == PING:
            if flags & ACK:
                self._listener.on_ping(bytes(payload))
            else:
                self._out += frame(PING, ACK, 0, bytes(payload))
        elif kind == PRIORITY:
            if stream_id(payload) == number:
                raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "stream that depends on itself")
        elif kind == PRIORITY_UPDATE:
            self._receive_priority_update(payload)
        elif kind == GOAWAY:
            if len(payload) < 8:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "short GOAWAY")
            self._listener.on_goaway()

    def _receive_settings(self, flags: int, payload: Buffer) -> None:
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of odd size")
        if flags & ACK:
            self._guards.is_settled = True
            return
        self._tell_h2(frame(SETTINGS, 0, 0, bytes(payload)))
        encoder = self._h2.encoder
        if encoder.header_table_size > _ENCODER_TABLE:
            encoder.header_table_size = _ENCODER_TABLE
        self._listener.on_window()

    def _receive_priority_update(self, payload: Buffer) -> None:
        if len(payload) < 4:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "short PRIORITY_UPDATE")
        number = stream_id(payload)
        if not number & 1:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"PRIORITY_UPDATE of {number}")
        priority = parse_priority(str(payload[4:], "latin-1"))
        if number in self.streams:
            self.streams[number].priority = priority
        elif number > self.highest and len(self._early_priorities) < self._max_streams:
            self._early_priorities[number] = priority

    def _tell_h2(self, data: bytes) -> None:
        """Let h2 change its state by a frame that it has to agree to."""
        try:
            self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its GOAWAY: ours says the same
            raise ConnectionBroken(ErrorCode(error.error_code), str(error)) from error
        self._out += self._h2.data_to_send()

    # -- what goes out ------------------------------------------------------------------------

    def respond(
        self, stream: Stream, status: int, fields: Iterable[Pair], ended: bool = False
    ) -> int:
        """A head, interim or final; names in lower case.  Its size in bytes."""
        pairs = [(b":status", b"%d" % status)]
        pairs += [(name.encode("latin-1"), text.encode("latin-1", "replace"))
                  for name, text in fields]  # fmt: skip
        self._h2.send_headers(stream.id, pairs, end_stream=ended)
        head = self._h2.data_to_send()
        self._out += head
        stream.is_answered = stream.is_answered or status >= 200
        if ended:
            stream.sends = False
            self._forget_if_over(stream)
        return len(head)

    def room(self, stream: Stream) -> int:
        """Bytes that may be sent now; never more than both windows hold."""
        own: int = stream.state.outbound_flow_control_window
        whole: int = self._h2.outbound_flow_control_window
        return own if own < whole else whole

    def send(self, stream: Stream, data: Buffer) -> None:
        """*data*, of which there is ``room``, in frames."""
        size = len(data)
        out = self._out
        if size <= MAX_FRAME:
            out += data_head(size, stream.id)
            out += data
        else:
            view = memoryview(data)
            for at in range(0, size, MAX_FRAME):
                piece = view[at : at + MAX_FRAME]
                out += data_head(len(piece), stream.id)
                out += piece
        stream.state.outbound_flow_control_window -= size
        self._h2.outbound_flow_control_window -= size

    def end(self, stream: Stream) -> None:
        """END_STREAM."""
        self._h2.end_stream(stream.id)
        self._out += self._h2.data_to_send()
        stream.sends = False
        self._forget_if_over(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """RST_STREAM; what still comes for it is dropped in silence."""
        self._h2.reset_stream(stream.id, code)
        self._out += self._h2.data_to_send()
        self._forget(stream, by_us=True)

    def credit(self, stream: Stream, count: int) -> None:
        """*count* more bytes of *stream* have been taken: the client may send as many again."""
        stream.owed += count
        if stream.owed >= CREDIT and not stream.has_ended and stream.id in self.streams:
            self._out += window_update(stream.id, stream.owed)
            stream.window += stream.owed
            stream.owed = 0

    def go_away(self, last: int, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """GOAWAY: no stream above *last* will be served; those below go on."""
        self._out += goaway(last, code)
        if last < MAX_STREAM:
            self._last = last

    def ping(self, data: bytes) -> None:
        self._out += frame(PING, 0, 0, data)

    @property
    def pending(self) -> int:
        """Bytes that ``take`` would give."""
        return len(self._out)

    def take(self) -> bytearray:
        """What is to be written."""
        out, self._out = self._out, bytearray()
        return out

    # -- streams that are over ----------------------------------------------------------------

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.has_ended and not stream.sends:
            self._forget(stream, by_us=False)

    def _forget(self, stream: Stream, by_us: bool) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self._remember(stream.id, by_us)

    def _remember(self, number: int, by_us: bool) -> None:
        self._over[number] = by_us
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]


def _quiet_h2() -> Any:
    """An ``h2`` that has said its SETTINGS to nobody, and checks nothing that is checked here."""
    config = h2.config.H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    connection = h2.connection.H2Connection(config)
    codes = h2.settings.SettingCodes
    connection.local_settings = h2.settings.Settings(
        client=False, initial_values={codes.MAX_CONCURRENT_STREAMS: MAX_STREAM}
    )
    connection.initiate_connection()
    connection.clear_outbound_data_buffer()
    return connection


def _name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"code {code}"
