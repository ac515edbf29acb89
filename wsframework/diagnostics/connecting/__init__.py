"""Connect to a server with trio-websocket (`opening`), and exchange messages with it (`talk`)."""
