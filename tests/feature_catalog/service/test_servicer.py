"""The calls' own rules; the whole service is tested in `tests/server/gateway`."""

import contextlib
import logging

import grpc
import pytest
from sqlalchemy.exc import ProgrammingError

from device_runtime.protocol import features_pb2 as pb
from feature_catalog.service.servicer import AskingDevice, DeviceFeaturesService


class Ended(Exception):
    """As gRPC ends a call."""


class Context:
    def abort(self, status, detail):
        raise Ended(status, detail)


class OpenDoor:
    def authenticate(self, request, context):
        return AskingDevice("device", "app")

    def look_up(self, device, keys, context):
        return contextlib.nullcontext()

    def count(self, call, result):
        pass


class BrokenDatabase:
    def find(self, service, contract_sha256):
        cause = Exception('relation "online_values" does not exist\nLINE 4')
        raise ProgrammingError("SELECT", {"keys": '{"\\x6d79206b6579"}'}, cause)


def test_a_broken_database_is_logged_without_the_keys_that_were_asked_for(caplog):
    access = BrokenDatabase()
    service = DeviceFeaturesService(OpenDoor(), access, None, None, None, None)
    request = pb.GetFeaturesRequest(service="ads", view="users", contract_sha256=bytes(32))
    with caplog.at_level(logging.ERROR), pytest.raises(Ended) as ended:
        service.GetFeatures(request, Context())
    status, told = ended.value.args
    assert status is grpc.StatusCode.UNAVAILABLE
    assert told == "the server cannot give it now [FLN-2947]"
    assert "online_values" in caplog.text
    assert "6d79206b6579" not in caplog.text
