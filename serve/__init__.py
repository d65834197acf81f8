"""Serve voices over HTTP and WebSocket."""
