"""Where the messages of a WebSocket client end, seen from outside (RFC 6455 section 5).

Nothing is checked or unmasked: whoever is given the bytes does that.
"""

from __future__ import annotations

_KIND, _FINAL = 0x88, 0x80  # FIN and not a control frame: the last frame of a message
_MASKED = 0x80
_EXTENDED = {126: 2, 127: 8}  # bytes of length behind the first two


class MessageMeter:
    """Follows the frames of one client."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # of a frame, not whole yet
        self._left = 0  # bytes of payload still to come

    def cut(self, data: memoryview, budget: int) -> tuple[int, int]:
        """(bytes, messages): how much of *data* goes by before a message beyond *budget* ends.

        A message counts when its last frame begins.  The rest is to be given again.
        """
        at = messages = 0
        while True:
            step = min(self._left, len(data) - at)
            at += step
            self._left -= step
            if at == len(data):
                return at, messages
            if not self._head and data[at] & _KIND == _FINAL:
                if messages == budget:
                    return at, messages
                messages += 1
            at += self._take_head(data[at : at + 14])

    def _take_head(self, data: memoryview) -> int:
        """Bytes of *data* that belong to the head of the frame."""
        head = self._head + data
        size = 2
        if len(head) >= 2:
            size += _EXTENDED.get(head[1] & 127, 0) + (4 if head[1] & _MASKED else 0)
        if len(head) < size:
            self._head = head
            return len(data)
        taken = size - len(self._head)
        self._head = b""
        length = head[1] & 127
        if length in _EXTENDED:
            length = int.from_bytes(head[2 : 2 + _EXTENDED[length]], "big")
        self._left = length
        return taken
