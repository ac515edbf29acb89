"""A structured-concurrency WebSocket server framework on Trio."""
