"""What coefficients know of all particles together: each kind in a file of its own."""
