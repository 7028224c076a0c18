"""``h2``, made to do what it is good for and to say nothing unasked.

It keeps the states of streams and the client's SETTINGS, and encodes fields and the frames they go
out in.  What it would check again is switched off, and of what comes it is told only what has been
found in order (``protocol.http2``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h2.config
import h2.connection
import h2.exceptions
import h2.settings
from hpack import HPACKError, OversizedHeaderListError

from ..message import Pair
from .h2_frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    ConnectionBroken,
    ErrorCode,
    frame,
)
from .tunnel import Buffer

MAX_FIELDS = 65535  # bytes of one request's fields, decoded; more is an attack
MAX_STREAM = 0x7FFFFFFF
_ENCODER_TABLE = 4096  # bytes; a client may offer more


class QuietH2:
    """One connection.  Methods return what is to be written."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2: Any = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=False, initial_values={codes.MAX_CONCURRENT_STREAMS: MAX_STREAM}
        )
        self._h2.initiate_connection()
        self._h2.clear_outbound_data_buffer()  # SETTINGS that are not ours
        self._decoder: Any = self._h2.decoder
        self._decoder.max_header_list_size = MAX_FIELDS
        self._h2.decoder = _Decoded()  # type: ignore[assignment]
        self._has_begun = False

    # -- what has come ------------------------------------------------------------------------

    def begin(self) -> None:
        """The preface; once, however often it is told."""
        if not self._has_begun:
            self._has_begun = True
            self._h2.receive_data(PREFACE)

    def decode(self, block: Buffer) -> list[tuple[bytes, bytes]]:
        """The fields of a block: of each that comes, since it may change the table.

        Raises ConnectionBroken.
        """
        try:
            fields: list[tuple[bytes, bytes]] = self._decoder.decode(bytes(block), raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        except (HPACKError, IndexError, TypeError, ValueError) as error:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        return fields

    def apply(self, settings: bytes) -> bytes:
        """The payload of the client's SETTINGS.  Raises ConnectionBroken."""
        answer = self.tell(frame(SETTINGS, 0, 0, settings))
        encoder = self._h2.encoder
        if encoder.header_table_size > _ENCODER_TABLE:
            encoder.header_table_size = _ENCODER_TABLE
        sizes = encoder.table_size_changes
        if sizes:  # of all since the last head: the smallest and the last (RFC 7541 section 4.2)
            sizes[:] = dict.fromkeys((min(sizes), sizes[-1]))
            # A size said twice would take back that there is one to be told.
            encoder.header_table.resized = True
        return answer

    @property
    def initial_window(self) -> int:
        """Bytes that may be sent on a new stream, as the client has it."""
        size: int = self._h2.remote_settings.initial_window_size
        return size

    def open(self, stream: int, ended: bool) -> bytes:
        """HEADERS of a request.  Raises ConnectionBroken."""
        return self.tell(frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), stream))

    def tell(self, data: bytes) -> bytes:
        """A frame that changes its state.  Raises ConnectionBroken when it does not agree."""
        try:
            self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its GOAWAY: ours says the same
            raise ConnectionBroken(ErrorCode(error.error_code), str(error)) from error
        return self._said()

    # -- what is sent -------------------------------------------------------------------------

    def send_fields(self, stream: int, pairs: Iterable[Pair], ended: bool) -> bytes:
        """A head, interim or final, or trailers; names in lower case."""
        encoded = [(name.encode("latin-1"), text.encode("latin-1", "replace"))
                   for name, text in pairs]  # fmt: skip
        self._h2.send_headers(stream, encoded, end_stream=ended)
        return self._said()

    def end(self, stream: int) -> bytes:
        self._h2.end_stream(stream)
        return self._said()

    def reset(self, stream: int, code: ErrorCode) -> bytes:
        self._h2.reset_stream(stream, code)
        return self._said()

    def _said(self) -> bytes:
        said: bytes = self._h2.data_to_send()
        return said


class _Decoded:
    """Stands where h2's decoder was: all that it needs to be told is that there are fields."""

    max_header_list_size = max_allowed_table_size = 0

    def decode(self, data: bytes, raw: bool) -> list[tuple[bytes, bytes]]:
        return []
