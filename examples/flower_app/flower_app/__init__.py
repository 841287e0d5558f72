"""A Flower app whose ServerApp trains with FLINT's strategies."""
