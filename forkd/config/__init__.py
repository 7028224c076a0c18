"""lighttpd.conf text to frozen dataclasses. Pure: reads files, touches nothing."""
