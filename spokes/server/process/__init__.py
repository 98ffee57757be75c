"""The server as a process: start, stop, reload, the control socket, and the administration as its child."""
