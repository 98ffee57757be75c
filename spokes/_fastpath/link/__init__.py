"""Links: frames, streams, credit and scheduling."""
