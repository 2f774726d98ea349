"""Systems that people know, ready to solve: each in a file of its own, with its reference and its parameters."""
