"""The client's side: connections to exchanges, one module for each HTTP version."""
