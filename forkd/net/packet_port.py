"""A port over a socket of SOCK_SEQPACKET: one packet, one message, empty ones included (unix(7)).

A read of no bytes is an empty packet when it comes with the sender's credentials, which the system
adds to every packet if asked to, and the end of input when it comes without.
"""

from __future__ import annotations

import socket
from collections import deque

from ..protocol.tunnel import Buffer, Packets
from .port import _VIEW, HIGH_WATER, FdPort, _reason, log

OVERHEAD = 32  # bytes of the send buffer that no packet can have (af_unix.c, unix_dgram_sendmsg)
_QUEUED_PACKET = 64  # bytes that a packet in the queue counts beside its own: empty ones cost too
_CREDENTIALS = socket.CMSG_SPACE(12)  # struct ucred


class PacketPort(FdPort):
    """Hands on each packet by itself, and writes ``Packets`` as such; bytes are one packet."""

    __slots__ = ("_packets", "_receive", "max_packet")

    def __init__(self, sock: socket.socket) -> None:
        """Take over *sock*, which is connected."""
        # Behind the connect: before it, the system would give the socket a name.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.max_packet = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - OVERHEAD
        """Bytes; a longer one cannot be sent."""
        self._packets: deque[bytes] | None = None  # what is queued
        self._receive = sock.recvmsg_into
        super().__init__(sock)

    def _readable(self) -> None:
        try:
            count, ancillary, flags, _ = self._receive((_VIEW,), _CREDENTIALS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.abort(_reason(error))
            return
        try:
            if flags & socket.MSG_TRUNC:
                self.abort(f"packet of more than {len(_VIEW)} bytes")
            elif count or ancillary:
                self.bytes_in += count
                self._listener.on_data(_VIEW[:count])
            elif self._broken:
                self.abort(self._broken)
            else:
                self._received_eof()
        except Exception:
            log.exception("port: listener failed")
            self.abort("internal error")

    def write(self, data: Buffer | Packets) -> bool:
        for packet in data if isinstance(data, Packets) else (data,):
            if self._out is not None or not self._send(packet):
                self._queue(packet)
        return self.queued <= HIGH_WATER

    def _send(self, packet: Buffer) -> bool:
        """False when it has to wait."""
        try:
            self.bytes_out += self._socket.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._write_failed(error)
        return True

    def _queue(self, packet: Buffer) -> None:
        if self._out is None or self._packets is None:
            self._out = bytearray()  # to FdPort: something waits
            self._packets = deque()
            self.watch_writable()
        self._packets.append(bytes(packet))
        self.queued += len(packet) + _QUEUED_PACKET

    def _writable(self) -> None:
        packets = self._packets
        while packets:
            if not self._send(packets[0]) or self._out is None:
                return
            self.queued -= len(packets.popleft()) + _QUEUED_PACKET
        self._out = self._packets = None
        super()._writable()
