"""The feature-learning dynamics: a problem, the network that is trained, and the solvers."""
