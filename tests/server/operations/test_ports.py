import socket

import pytest

from server.operations.ports import (
    PortInUse,
    UnusableAddress,
    choose_ports,
    is_accepting,
    join_address,
    split_address,
)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_free_ports_are_chosen_and_all_differ():
    ports = choose_ports(dict.fromkeys("abcdef", ("127.0.0.1", 0)))
    assert len(set(ports.values())) == 6
    assert 0 not in ports.values()


def test_a_taken_port_is_named_with_the_option_that_changes_it(listener):
    port = listener.getsockname()[1]
    with pytest.raises(PortInUse, match=rf"port {port} .*--gateway-metrics-port.*\[FLN-1203\]"):
        choose_ports({"gateway_metrics": ("127.0.0.1", port)})


def test_a_port_asked_for_twice_is_refused():
    free = choose_ports({"any": ("127.0.0.1", 0)})["any"]
    with pytest.raises(PortInUse, match=str(free)):
        choose_ports({"gateway": ("127.0.0.1", free), "superlink": ("127.0.0.1", free)})


def test_a_chosen_port_is_never_one_that_was_asked_for():
    free = choose_ports({"any": ("127.0.0.1", 0)})["any"]
    ports = choose_ports({"a": ("127.0.0.1", 0), "b": ("127.0.0.1", free)})
    assert ports["b"] == free != ports["a"]


def test_an_address_of_another_machine_is_refused_in_one_sentence():
    with pytest.raises(UnusableAddress, match=r"192\.0\.2\.1 .*--gateway-port.*\[FLN-1214\]"):
        choose_ports({"gateway": ("192.0.2.1", 0)})


def test_a_port_whose_last_connection_is_closing_is_free(listener):
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        accepted, _ = listener.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
    listener.close()
    assert choose_ports({"gateway": ("127.0.0.1", port)}) == {"gateway": port}


def test_only_a_listener_accepts(listener):
    address = join_address(*listener.getsockname())
    assert is_accepting(address)
    listener.close()
    assert not is_accepting(address)


@pytest.mark.parametrize("pair", [("127.0.0.1", 9510), ("::1", 80), ("fl.example.com", 443)])
def test_addresses_survive_joining_and_splitting(pair):
    assert split_address(join_address(*pair)) == pair


def test_one_port_for_two_purposes_names_both():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wanted = {"gateway": ("127.0.0.1", port), "coordinator": ("127.0.0.1", port)}
    with pytest.raises(PortInUse, match="meant for the gateway and for the coordinator"):
        choose_ports(wanted)
