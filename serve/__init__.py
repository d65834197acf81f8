"""Serve a voice over HTTP and WebSocket: not built yet, see the README."""
