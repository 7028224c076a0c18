"""Before a gateway is chosen: pure steps from a request to a changed one, or to a response."""
