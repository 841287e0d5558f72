"""The Flower App of every FLINT job."""
