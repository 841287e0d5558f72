"""Whether a request is from the device it names: credential, fresh timestamp, signature."""

from collections.abc import Callable

from device_runtime.identity import (
    FeatureRequest,
    verify_check_in,
    verify_feature_request,
    verify_upload,
)
from device_runtime.protocol import device_pb2 as pb
from server.gateway.tokens import DeviceClaims, TokenMint

MAX_CLOCK_DIFFERENCE_S = 300.0


class NotAuthentic(Exception):
    """A request that its device did not send, or not now; the message says which."""


class DeviceAuthenticator:
    """Checks proofs with nothing but the token key: no database, no memory of devices.

    A request repeated within the window is harmless: a check-in gives its device's lease again, an
    upload its first answer, and what is asked of the feature catalog changes nothing.
    """

    def __init__(self, mint: TokenMint, clock: Callable[[], float]) -> None:
        self._mint = mint
        self._clock = clock

    def check_in(self, request: pb.CheckInRequest) -> DeviceClaims:
        """Who checks in.

        Raises:
            NotAuthentic: If nobody does.
        """
        claims = self._claims(request.proof)
        if not verify_check_in(claims.public_key, request):
            raise NotAuthentic("the signature is not of the enrolled key over this request")
        return claims

    def upload(self, request: pb.UploadRequest) -> DeviceClaims:
        """Who uploads.

        Raises:
            NotAuthentic: If nobody does.
        """
        claims = self._claims(request.proof)
        if not verify_upload(claims.public_key, request):
            raise NotAuthentic("the signature is not of the enrolled key over token and digest")
        return claims

    def feature_request(self, request: FeatureRequest) -> DeviceClaims:
        """Who asks for features.

        Raises:
            NotAuthentic: If nobody does.
        """
        claims = self._claims(request.proof)
        if not verify_feature_request(claims.public_key, request):
            raise NotAuthentic("the signature is not of the enrolled key over this request")
        return claims

    def _claims(self, proof: pb.DeviceProof) -> DeviceClaims:
        claims = self._mint.open_credential(proof.credential)
        if claims is None:
            raise NotAuthentic("the credential was not issued by this deployment; enrol again")
        if claims.device_id != proof.device_id:
            raise NotAuthentic("the credential is another device's")
        difference_s = proof.timestamp_ms / 1000 - self._clock()
        if abs(difference_s) > MAX_CLOCK_DIFFERENCE_S:
            raise NotAuthentic(
                f"the request's time is {difference_s:+.0f} s from the server's; "
                f"at most {MAX_CLOCK_DIFFERENCE_S:.0f} s are accepted"
            )
        return claims
