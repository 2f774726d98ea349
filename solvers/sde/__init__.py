"""McKean–Vlasov equations: what they are, how they are solved, and at what order."""
