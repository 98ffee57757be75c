"""Sans-io: control messages, their parts, and the handshake of both ends. No sockets, no clock, no threads."""
