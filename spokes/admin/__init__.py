"""The administration API: a Falcon app under gunicorn, reached through the engine under the server's own name."""
