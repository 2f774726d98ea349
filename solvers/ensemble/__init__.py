"""The N coordinates, wherever they live: arrays, noise and sums over them."""
