"""The process that binds, spawns and reaps. Never touches a client's bytes."""
