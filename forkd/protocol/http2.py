"""The server's side of an HTTP/2 connection, round ``h2``; pure: bytes in, calls and bytes out.

Who does what (RFC 9113 leaves a server to choose what is an error of a stream and what of all):

    the walker      frames: sizes, padding, field blocks in one piece (``h2_frames``)
    here            which stream errors and which connection errors; DATA and every window; GOAWAY;
                    PING; what is too much (``h2_guards``); what goes out (``h2_sender``)
    h2              the states of streams, SETTINGS, encoding of fields and frames (``h2_quiet``)

``h2`` hears of a stream only when its fields are in order, and of DATA only that they have ended.
It takes for a connection error what need be one of a stream, it counts out a connection's window
for one stalled upload, and it would speak no more once a GOAWAY has gone either way.
"""

from __future__ import annotations

from typing import Protocol

from .h2_fields import H2Head, check_trailers, read_fields
from .h2_frames import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
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
from .h2_quiet import MAX_FIELDS
from .h2_sender import INITIAL_WINDOW, Sender
from .h2_stream import STREAM_WINDOW, Stream, StreamListener
from .tunnel import Buffer

CONNECTION_WINDOW = 1 << 20  # bytes that a client may send before it is told to go on
_LOW = CONNECTION_WINDOW // 2
MAX_WINDOW = 0x7FFFFFFF

SETTINGS_OF_OURS = {
    4: STREAM_WINDOW,  # INITIAL_WINDOW_SIZE
    6: MAX_FIELDS,  # MAX_HEADER_LIST_SIZE
    8: 1,  # ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3)
    9: 1,  # NO_RFC7540_PRIORITIES (RFC 9218 section 2.1)
}
_MAX_CONCURRENT_STREAMS = 3


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


class Http2(Sender):
    """One connection.  ``receive`` is fed; ``take`` gives what is to be written."""

    def __init__(self, listener: ConnectionListener, max_streams: int, max_fields: int) -> None:
        """*max_streams* at one time; more than *max_fields* bytes of fields are a 431."""
        super().__init__()
        self.highest = 0
        """The last stream that the client has opened."""
        self.error: ConnectionBroken | None = None
        """The end of the connection: what ``take`` gives is the last."""
        self._listener = listener
        self._max_streams = max_streams
        self._max_fields = max_fields
        self._walker = FrameWalker(self._piece, self._frame, self._depends_on_itself)
        self._guards = Guards()
        self._preface = bytearray()
        self._window = CONNECTION_WINDOW  # bytes that the client may send on all streams together
        self._new_room = INITIAL_WINDOW  # bytes that may be sent on a new stream
        self._granted = INITIAL_WINDOW  # bytes that the client has ever let us send
        self._seen_sent = 0  # of them, by the last WINDOW_UPDATE
        self._early_priorities: dict[int, Priority] = {}
        self._self_dependent = 0
        self.out += settings({_MAX_CONCURRENT_STREAMS: max_streams, **SETTINGS_OF_OURS})
        self.out += window_update(0, CONNECTION_WINDOW - INITIAL_WINDOW)

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
            self._h2.begin()
            if len(theirs) % 6:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "bad HTTP2-Settings")
            self._apply_settings(theirs)  # the 101 has acknowledged them
        except ConnectionBroken as broken:
            self._fail(broken)
            return
        self.highest = 1
        self._begin_stream(END_STREAM, 1, head)

    def forgive(self) -> None:
        """To be called once a second: see ``Guards.forgive``."""
        self._guards.forgive()

    def _skip_preface(self, data: Buffer) -> Buffer:
        missing = len(PREFACE) - len(self._preface)
        self._preface += data[:missing]
        if not PREFACE.startswith(self._preface):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "bad preface")
        if len(self._preface) == len(PREFACE):
            self._h2.begin()
        return data[missing:]

    def _fail(self, broken: ConnectionBroken) -> None:
        self.error = broken
        last = self.highest if self._last is None else self._last  # section 6.8: it never grows
        self.out += goaway(last, broken.code)

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
            self.out += rst_stream(number, broken.code)
            self._remember(number, True)
        self._guards.provoked()

    # -- DATA (section 6.1) -------------------------------------------------------------------

    def _piece(self, number: int, payload: Buffer) -> None:
        """DATA without flags: in a tunnel, every message."""
        size = len(payload)
        stream = self.streams.get(number)
        if (
            stream is None
            or not 0 < size <= stream.window
            or stream.left is not None
            or stream.has_ended
        ):
            self._frame(DATA, 0, number, payload, size)
            return
        self._window -= size
        if self._window < _LOW:
            self._refill()
        stream.window -= size
        if self._guards.is_wary:
            self._guards.moved()
        stream.listener.on_data(payload)

    def _refill(self) -> None:
        """The connection's window is for all: nobody's slowness may use it up."""
        if self._window < 0:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "connection's window overrun")
        self.out += window_update(0, CONNECTION_WINDOW - self._window)
        self._window = CONNECTION_WINDOW

    def _receive_data(self, flags: int, number: int, payload: Buffer, size: int) -> None:
        self._window -= size
        if self._window < _LOW:
            self._refill()
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
        if number > self.highest or not number & 1:
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
        self.out += self._h2.tell(frame(DATA, END_STREAM, stream.id))
        self._forget_if_over(stream)
        stream.listener.on_end()

    # -- HEADERS (section 6.2) ----------------------------------------------------------------

    def _depends_on_itself(self, number: int) -> None:
        self._self_dependent = number

    def _receive_headers(self, flags: int, number: int, block: Buffer) -> None:
        fields = self._h2.decode(block)  # of what is refused, too
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
        has_ended = bool(flags & END_STREAM)
        self.out += self._h2.open(number, has_ended)
        is_tunnel = head.head.method == "CONNECT"
        stream = Stream(number, self._new_room, is_tunnel, None if is_tunnel else head.length)
        stream.has_ended = has_ended
        stream.priority = self._first_priority(number, head)
        self.streams[number] = stream
        stream.listener = self._listener.on_request(stream, head)
        if stream.has_ended and number in self.streams:
            stream.listener.on_end()

    def _refuse(self, number: int) -> None:
        self.out += rst_stream(number, ErrorCode.REFUSED_STREAM)
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
        sent = self._granted - self.room
        if sent == self._seen_sent:
            self._guards.idle()
        else:  # a client that only reads says nothing else
            self._seen_sent = sent
            self._guards.moved()
        target: Sender | Stream = self
        error: type[ConnectionBroken | StreamBroken] = ConnectionBroken
        if number:
            stream = self._known(number, "WINDOW_UPDATE")
            if stream is None:
                return
            target, error = stream, StreamBroken
        else:
            self._granted += increment
        if not increment:
            raise error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        target.room += increment
        if target.room > MAX_WINDOW:
            raise error(ErrorCode.FLOW_CONTROL_ERROR, "window of more than 2^31-1")
        self._listener.on_window()

    def _receive_reset(self, number: int, code: int) -> None:
        stream = self._known(number, "RST_STREAM")
        if stream is None:
            return
        self.out += self._h2.tell(rst_stream(number, code))
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
                self.out += frame(PING, ACK, 0, bytes(payload))
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
        self.out += self._apply_settings(bytes(payload))
        self._listener.on_window()

    def _apply_settings(self, theirs: bytes) -> bytes:
        """The acknowledgement."""
        answer = self._h2.apply(theirs)
        change = self._h2.initial_window - self._new_room
        self._new_room += change
        for stream in self.streams.values():  # section 6.9.2
            stream.room += change
            if stream.room > MAX_WINDOW:
                raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "window of more than 2^31-1")
        return answer

    def _receive_priority_update(self, payload: Buffer) -> None:
        if len(payload) < 4:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "short PRIORITY_UPDATE")
        number = stream_id(payload)
        if not number & 1:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"PRIORITY_UPDATE of {number}")
        priority = parse_priority(str(payload[4:], "latin-1"))
        if number in self.streams:
            self.streams[number].priority = priority
        elif number > self.highest:
            early = self._early_priorities
            for passed in [one for one in early if one < self.highest]:  # never served
                del early[passed]
            if len(early) < self._max_streams:
                early[number] = priority


def _name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"code {code}"
