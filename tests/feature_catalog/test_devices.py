"""Enrolment: who gets in, how often, and with which key."""

import threading

import pytest
from sqlalchemy import Engine, text

from feature_catalog.devices import (
    DeviceAlreadyEnrolled,
    DeviceRegistry,
    InvalidEnrolmentToken,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def registry(engine: Engine) -> DeviceRegistry:
    return DeviceRegistry(engine)


def enrol(registry: DeviceRegistry, token: str, device_id: str, key: bytes = b"key") -> None:
    registry.enrol(token, device_id, key, "app", "Pixel 9", "16")


def test_an_enrolled_device_is_known_by_its_key(registry: DeviceRegistry) -> None:
    token = registry.create_enrolment_token(2, 60)
    enrol(registry, token, "d-1", b"der")
    assert registry.public_key("d-1") == b"der"
    assert registry.public_key("d-2") is None
    assert registry.count() == 1


def test_the_token_itself_is_not_stored(registry: DeviceRegistry, engine: Engine) -> None:
    token = registry.create_enrolment_token(2, 60)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT t::text FROM enrolment_tokens t")).scalars().all()
    assert len(rows) == 1
    assert token not in rows[0]


def test_a_token_lets_in_as_many_devices_as_it_says(registry: DeviceRegistry) -> None:
    token = registry.create_enrolment_token(2, 60)
    enrol(registry, token, "d-1")
    enrol(registry, token, "d-2")
    with pytest.raises(InvalidEnrolmentToken, match="let in its 2 devices"):
        enrol(registry, token, "d-3")


def test_asking_again_with_the_same_key_changes_nothing(registry: DeviceRegistry) -> None:
    token = registry.create_enrolment_token(1, 60)
    enrol(registry, token, "d-1")
    enrol(registry, token, "d-1")
    assert registry.count() == 1


def test_another_key_for_an_enrolled_device_is_refused(registry: DeviceRegistry) -> None:
    token = registry.create_enrolment_token(2, 60)
    enrol(registry, token, "d-1", b"first")
    with pytest.raises(DeviceAlreadyEnrolled, match="another key"):
        enrol(registry, token, "d-1", b"second")
    assert registry.public_key("d-1") == b"first"


def test_unknown_and_expired_tokens_are_refused(registry: DeviceRegistry, engine: Engine) -> None:
    with pytest.raises(InvalidEnrolmentToken, match="not known"):
        enrol(registry, "guessed", "d-1")
    token = registry.create_enrolment_token(1, 60)
    with engine.begin() as connection:
        connection.execute(text("UPDATE enrolment_tokens SET expires_at = now()"))
    with pytest.raises(InvalidEnrolmentToken, match="expired"):
        enrol(registry, token, "d-1")
    assert registry.count() == 0


def test_a_token_for_nobody_cannot_be_made(registry: DeviceRegistry) -> None:
    for max_devices, valid_for_s in ((0, 60.0), (1, 0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            registry.create_enrolment_token(max_devices, valid_for_s)


def test_devices_that_enrol_at_once_share_the_places(registry: DeviceRegistry) -> None:
    token = registry.create_enrolment_token(5, 60)
    refused: list[str] = []

    def try_to(device_id: str) -> None:
        try:
            enrol(registry, token, device_id)
        except InvalidEnrolmentToken:
            refused.append(device_id)

    threads = [threading.Thread(target=try_to, args=(f"d-{n}",)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert registry.count() == 5
