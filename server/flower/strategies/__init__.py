"""FLINT's strategies for somebody's own Flower ServerApp."""

from server.flower.strategies.fedbuff import FedBuff
from server.flower.strategies.over_committed_fedavg import OverCommittedFedAvg

__all__ = ["FedBuff", "OverCommittedFedAvg"]
