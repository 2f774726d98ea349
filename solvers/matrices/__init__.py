"""A Gaussian weight matrix under training, sampled where training looks or held whole."""
