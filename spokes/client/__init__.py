"""The tunnel client: one session to a server, kept up for ever, and the local services behind it."""
