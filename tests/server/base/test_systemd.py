"""systemd's notification socket, with one of the test's own."""

import socket

from spokes.server.base.systemd import tell_status


def test_status_is_told_to_the_notification_socket(tmp_path, monkeypatch):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        tell_status("standby; probes tun.example.net:443")
        assert systemd.recv(1024) == b"STATUS=standby; probes tun.example.net:443\n"


def test_status_without_systemd_is_told_to_nobody(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_status("serves")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    tell_status("serves")
