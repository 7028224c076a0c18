"""Bytes in motion: callbacks on the gevent loop, and the greenlet view of them."""
