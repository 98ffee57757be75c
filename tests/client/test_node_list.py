"""SRV records made into a list of nodes, right ones and wrong ones."""

from spokes.client.node_list import NODE_COUNT_MAX, NodeAddress, read_records
from spokes.resolver import ServiceAnswer, ServiceRecord

HOST = "tun.example"


def read(*records, **answer):
    return read_records(HOST, 8443, ServiceAnswer(tuple(ServiceRecord(*one) for one in records), **answer))


def test_no_records_the_name_alone_is_the_server_at_the_configured_port():
    assert (read().nodes, read().problem) == ((NodeAddress(HOST, 8443),), "")


def test_records_by_priority_then_weight_with_their_ports():
    found = read((20, 0, "c.example", 443), (10, 5, "B.example", 444), (10, 50, "a.example", 445))
    assert found.nodes == (
        NodeAddress("a.example", 445, 10, 50), NodeAddress("b.example", 444, 10, 5), NodeAddress("c.example", 443, 20),
    )  # fmt: skip
    assert [str(node) for node in found.nodes] == ["a.example:445", "b.example:444", "c.example"]
    assert found.problem == ""


def test_target_root_there_is_no_server_and_it_is_said():
    found = read(is_unavailable=True)
    assert found.nodes == ()
    assert "_spokes._tcp.tun.example" in found.problem


def test_record_that_names_the_cluster_beside_others_is_left_out_and_said():
    found = read((10, 0, "TUN.example", 443), (20, 0, "b.example", 443))
    assert [node.host for node in found.nodes] == ["b.example"]
    assert "names the cluster itself" in found.problem


def test_record_that_names_the_cluster_alone_is_the_server_at_its_port():
    found = read((10, 0, HOST, 444))
    assert (found.nodes, found.problem) == ((NodeAddress(HOST, 444, 10, 0),), "")


def test_same_node_twice_counts_once_at_its_lowest_priority():
    assert read((20, 0, "a.example", 443), (10, 0, "a.example", 443)).nodes == (NodeAddress("a.example", 443, 10),)


def test_port_0_is_left_out_and_said():
    found = read((10, 0, "a.example", 0), (10, 0, "b.example", 443))
    assert [node.host for node in found.nodes] == ["b.example"]
    assert "port 0 for a.example" in found.problem


def test_more_nodes_than_count_the_first_ones_stay():
    found = read(*((number, 0, f"n{number}.example", 443) for number in range(NODE_COUNT_MAX + 3)))
    assert [node.priority for node in found.nodes] == list(range(NODE_COUNT_MAX))
    assert f"{NODE_COUNT_MAX + 3} nodes" in found.problem
