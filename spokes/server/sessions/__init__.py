"""Clients: from the hello of a link to the end of its session, and what a logged-in client may say and ask."""
