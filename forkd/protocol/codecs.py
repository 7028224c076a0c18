"""Which codec serves a WebSocket: from what was configured and negotiated to a ``TunnelCodec``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .deflate import DeflateParams, Deflater, Inflater, budget_of
from .frame import Opcode
from .framings import (
    Decoder,
    Encoder,
    LineDecoder,
    LineEncoder,
    NetstringDecoder,
    NetstringEncoder,
    PacketDecoder,
    PacketEncoder,
    StreamDecoder,
    StreamEncoder,
    TypedDecoder,
    TypedEncoder,
)
from .messages import DeflateFrameEncoder, FrameEncoder, MessageCodec
from .tunnel import TunnelCodec
from .websocket import WebSocketCodec


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """One WebSocket: what was configured, and of permessage-deflate what was agreed on."""

    framing: str = "stream"
    """stream, line, netstring, typed or seqpacket (wstunnel.md 10.1)."""
    binary: bool = False
    """The type of messages from the backend, where the framing does not tell it."""
    line_newline: str = "refuse"
    """line: what a line feed inside a message is: ``refuse`` (Close 1007) or ``space``."""
    max_message_size: int = 0
    """Bytes, for both directions; 0: no limit."""
    max_frame_size: int = 0
    deflate: DeflateParams | None = None


def make_codec(settings: CodecSettings) -> TunnelCodec:
    """The codec of one new WebSocket.

    For ``seqpacket`` it is fed one packet a call by the backend, and what it has for the backend
    is ``Packets``.
    """
    if settings.framing == "stream" and settings.deflate is None:
        return WebSocketCodec(settings.binary, settings.max_message_size, settings.max_frame_size)
    encoder, decoder = FRAMINGS[settings.framing](settings)
    limits = settings.max_message_size, settings.max_frame_size
    if settings.deflate is None:
        return MessageCodec(encoder, decoder, FrameEncoder(), limits)
    budget = budget_of(settings.deflate.memory_limit)
    to_client = DeflateFrameEncoder(Deflater(settings.deflate, budget), settings.deflate.min_size)
    return MessageCodec(
        encoder, decoder, to_client, limits, Inflater(settings.deflate, budget, limits[0])
    )


def _type(settings: CodecSettings) -> int:
    return int(Opcode.BINARY if settings.binary else Opcode.TEXT)


FRAMINGS: dict[str, Callable[[CodecSettings], tuple[Encoder, Decoder]]] = {
    "stream": lambda of: (StreamEncoder(), StreamDecoder(_type(of))),
    "line": lambda of: (
        LineEncoder(of.line_newline == "space"),
        LineDecoder(_type(of), of.max_message_size),
    ),
    "netstring": lambda of: (
        NetstringEncoder(),
        NetstringDecoder(_type(of), of.max_message_size),
    ),
    "typed": lambda of: (TypedEncoder(), TypedDecoder(of.max_message_size)),
    "seqpacket": lambda of: (PacketEncoder(), PacketDecoder(_type(of))),
}
