"""The process that accepts and serves."""
