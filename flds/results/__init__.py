"""What solvers return, and the files of it."""
