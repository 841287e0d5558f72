#!/bin/sh
# Regenerates the gRPC stubs from the .proto files. Run from the repository root; a test runs the
# same commands into a scratch folder and compares.
set -eu
out="${1:-.}"
python -m grpc_tools.protoc -I . --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
    device_runtime/protocol/device.proto device_runtime/protocol/features.proto \
    server/fleet_protocol/fleet.proto \
    server/aggregation/aggregation.proto server/gateway/tokens.proto \
    server/gateway/peers.proto server/secure_aggregation/enclave.proto
