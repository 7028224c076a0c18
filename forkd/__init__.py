"""forkd: a pre-fork server that puts any Unix program behind WebSocket and HTTP."""

__version__ = "0.1.0"
