"""CPU time of each framing of wstunnel and of permessage-deflate, in rounds, relative to the bare
stream of the same round.

Only the codec: a masked frame of the client becomes what the backend gets, and that, sent back,
a frame for the client.  What the system and the loop cost comes on top and is the same for all; see
``tests/bench/run`` for a whole server.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from client_frames import TEXT  # noqa: E402
from tables import Run, print_table  # noqa: E402

from forkd.protocol.codecs import CodecSettings, make_codec  # noqa: E402
from forkd.protocol.deflate import DeflateParams  # noqa: E402
from forkd.protocol.tunnel import MORE  # noqa: E402

BASELINE = "stream"
MESSAGES = 256  # made before each run: with a window taken over no two compressed ones are the same
ANSWERS = {
    "stream": lambda payload: payload,
    "line": lambda payload: payload + b"\n",
    "netstring": lambda payload: b"%d:%b," % (len(payload), payload),
    "typed": lambda payload: b"\x01" + len(payload).to_bytes(4, "big") + payload,
    "seqpacket": lambda payload: payload,
}


@dataclass(frozen=True)
class Subject:
    """A codec and the frames that it is fed."""

    name: str
    settings: CodecSettings

    def run(self, size: int, seconds: float) -> Run:
        """CPU microseconds of a message there and back."""
        payloads = _payloads(size)
        answers = [memoryview(ANSWERS[self.settings.framing](payload)) for payload in payloads]
        spent, count = 0.0, 0
        while spent < seconds:
            frames = [memoryview(raw) for raw in self._frames(payloads)]
            codec = make_codec(self.settings)
            begun = time.process_time()
            for raw, answer in zip(frames, answers, strict=True):
                codec.from_client(raw)
                while codec.end is MORE:  # as a tunnel does
                    codec.end = None
                    codec.from_client(b"")
                codec.from_backend(answer)
            spent += time.process_time() - begun
            count += MESSAGES
            assert codec.messages == (MESSAGES, MESSAGES) and codec.end is None, codec.end
        return {"us": spent / count * 1e6}

    def _frames(self, payloads: list[bytes]) -> list[bytes]:
        if self.settings.deflate is None:
            return [_frame(payload) for payload in payloads]
        stream = zlib.compressobj(self.settings.deflate.level, zlib.DEFLATED, -15)
        flush = zlib.Z_SYNC_FLUSH
        packed = [stream.compress(payload) + stream.flush(flush) for payload in payloads]
        return [_frame(each[:-4], rsv1=True) for each in packed]


def _frame(payload: bytes, rsv1: bool = False) -> bytes:
    """A client's; its key is of zeros, which costs the codec what any other does."""
    first, size = 0x80 | rsv1 << 6 | TEXT, len(payload)
    if size < 126:
        header = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        header = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return header + bytes(4) + payload


@cache
def _payloads(size: int) -> list[bytes]:
    """Text that compresses as JSON does: to about a fifth."""
    item = b'{"id":%d,"name":"user","online":true},'
    count = size // len(item) + 1
    return [
        b"".join(item % random.randrange(10**6) for _ in range(count))[:size]
        for _ in range(MESSAGES)
    ]


def main() -> None:
    options = _options()
    deflate = DeflateParams(level=options.level, min_size=0)
    subjects = [Subject(framing, CodecSettings(framing)) for framing in ANSWERS]
    subjects += [
        Subject(f"{framing}, deflate", CodecSettings(framing, deflate=deflate))
        for framing in ("stream", "typed")
    ]
    for size in options.size:
        runs: dict[str, list[Run]] = {subject.name: [] for subject in subjects}
        for _ in range(options.rounds):
            for subject in random.sample(subjects, len(subjects)):
                runs[subject.name].append(subject.run(size, options.seconds))
        print_table(f"{size} B", {"CPU us there and back": "us"}, runs, BASELINE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run framings", description=__doc__)
    parser.add_argument("--size", type=int, nargs="*", default=[16, 1024, 65536], help="bytes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="CPU time of one run")
    parser.add_argument("--level", type=int, default=6, help="of zlib")
    return parser.parse_args()


if __name__ == "__main__":
    main()
