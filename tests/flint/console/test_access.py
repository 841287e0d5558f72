"""Whoever is not meant to read the console does not; nobody writes through it."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.responses import HTMLResponse
from starlette.types import Message

from flint.console.access import POLICY, Guarded, is_loopback, is_trusted_host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_only_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "flint.example", ""])
def test_everything_else_is_reached_from_elsewhere(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "header", ["127.0.0.1", "127.0.0.1:9520", "localhost:8080", "LOCALHOST", "[::1]:9520"]
)
def test_a_console_on_loopback_answers_to_its_own_names(header):
    assert is_trusted_host(header, [], only_loopback=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "evil.example",
        "evil.example:9520",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.7:9520",
        "127.0.0.1@evil.example",
        "evil.example#@127.0.0.1",
        "evil.example\\@127.0.0.1",
        "evil.example/127.0.0.1",
        "[::1",
        "localhost, evil.example",
    ],
)
def test_it_does_not_answer_to_a_name_that_others_may_have_made_point_here(header):
    assert not is_trusted_host(header, [], only_loopback=True)


def test_a_console_for_others_answers_to_addresses_and_to_the_names_it_was_given():
    for header in ("10.0.0.7:9520", "[fd00::7]", "flint.example:443", "FLINT.example"):
        assert is_trusted_host(header, ["flint.Example"], only_loopback=False)
    assert not is_trusted_host("evil.example", ["flint.example"], only_loopback=False)


def answer(
    method: str = "GET",
    path: str = "/",
    query: bytes = b"",
    hosts: Sequence[str] = ("localhost",),
) -> tuple[int, dict[str, str]]:
    """Status and headers of what a guarded application answers."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(b"host", host.encode()) for host in hosts],
    }
    asyncio.run(Guarded(HTMLResponse("in"), [], only_loopback=True)(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_reading_methods_reach_a_page(method):
    status, headers = answer(method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert answer("HEAD")[0] == answer("GET")[0] == 200


def test_every_answer_holds_browsers_to_the_page_itself():
    for status, headers in (answer(), answer("POST"), answer(hosts=["evil.example"])):
        assert status in {200, 405, 421}
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY


def test_two_hosts_or_none_are_trusted_as_little_as_a_foreign_one():
    assert answer(hosts=["localhost", "evil.example"])[0] == 421
    assert answer(hosts=[])[0] == 421


def test_what_no_name_may_contain_is_refused_before_the_database_is_asked():
    assert answer(path="/jobs/\x00")[0] == 400
    assert answer(query=b"q=%00")[0] == 400
