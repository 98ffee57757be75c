"""Trying a start without one: every fault is told, whatever kind it is of."""

import errno
import os
from pathlib import Path

from spokes.config import ServerConfig
from spokes.config_values import Address
from spokes.server.process.trial import try_start

HERE = (Address("127.0.0.1", 0),)


def test_trial_folder_that_may_not_be_looked_into_is_told_once_and_the_rest_is_tried(tmp_path, monkeypatch):
    """As where another user's folder lies on the way: stat() itself is refused."""
    data = tmp_path / "closed" / "data"
    exists = Path.exists

    def refused(path):
        if data in (path, *path.parents):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(data))
        return exists(path)

    for name in ("exists", "is_dir", "is_file"):
        monkeypatch.setattr(Path, name, refused)
    config = ServerConfig(domain="tun.test", data=data, http=HERE, https=HERE, memory_limit_bytes=1 << 60)
    errors = try_start(config)
    assert [error.code for error in errors] == ["SPK-DATA-DIR", "SPK-CONFIG"]
    assert str(data) in str(errors[0])
