"""Named arrays with units, and the files that keep them."""
