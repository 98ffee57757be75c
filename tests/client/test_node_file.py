"""The last good list of nodes on disk: written whole, believed only as far as it can be."""

import json
import logging
import os
import stat

import pytest

from spokes.client.node_file import NodeFile
from spokes.client.node_list import NodeAddress

HOST = "tun.example"
NODES = (NodeAddress("a.example", 443, 10, 1), NodeAddress("b.example", 444, 20, 0))


def test_write_then_read_is_the_same_and_only_the_owner_reads(config_path):
    file = NodeFile(config_path)
    assert file.read(HOST) == ()
    file.write(NODES)
    file.note_addresses("a.example", ["192.0.2.1", "2001:db8::1"])
    file.note_addresses("unlisted.example", ["192.0.2.2"])
    again = NodeFile(config_path)
    assert again.read(HOST) == NODES
    assert again.addresses == {"a.example": ["192.0.2.1", "2001:db8::1"], "b.example": []}
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.path.name == "config.json.nodes"


def test_read_of_another_cluster_is_none(config_path):
    file = NodeFile(config_path)
    file.read(HOST)
    file.write(NODES)
    assert NodeFile(config_path).read("other.example") == ()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"cluster": "tun.example"}', '{"cluster": "tun.example", "nodes": [1]}',
     '{"cluster": "tun.example", "nodes": [{"host": "a", "port": "x", "priority": 1, "weight": 1}]}', "[" * 100_000],
)  # fmt: skip
def test_read_damaged_file_counts_as_none(config_path, text):
    file = NodeFile(config_path)
    file.path.write_text(text)
    assert file.read(HOST) == ()


def test_read_addresses_that_are_none_are_left_out(config_path):
    file = NodeFile(config_path)
    node = {"host": "a.example", "port": 443, "priority": 1, "weight": 1, "addresses": ["192.0.2.1", "evil.example", 7]}
    file.path.write_text(json.dumps({"cluster": HOST, "nodes": [node, node | {"host": "b.example", "port": 0}]}))
    assert [one.host for one in file.read(HOST)] == ["a.example"]
    assert file.addresses == {"a.example": ["192.0.2.1"]}


def test_write_that_is_not_possible_costs_one_warning(config_path, caplog, monkeypatch):
    def no_space(*_, **__):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("spokes.client.node_file.write_file", no_space)
    caplog.set_level(logging.WARNING)
    file = NodeFile(config_path)
    file.read(HOST)
    file.write(NODES)
    file.write(NODES[:1])
    assert [record.message for record in caplog.records] == ["list of nodes not saved"]


def test_command_writes_and_removes_nothing(config_path):
    NodeFile(config_path).read(HOST)
    file = NodeFile(config_path)
    file.read(HOST)
    file.write(NODES)
    command = NodeFile(config_path, read_only=True)
    assert command.read(HOST) == NODES
    command.write(())
    command.remove()
    assert NodeFile(config_path).read(HOST) == NODES
    file.remove()
    assert not file.path.exists()
