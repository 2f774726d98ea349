"""The home of particles in tensors of torch, on a GPU or on the processor; nothing else of the engine needs torch."""
