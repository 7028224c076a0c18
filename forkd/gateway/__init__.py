"""The backend's side of a request: one file for each lighttpd module."""
