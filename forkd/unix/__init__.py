"""Thin, named wrappers of system calls. No HTTP, no gevent."""
