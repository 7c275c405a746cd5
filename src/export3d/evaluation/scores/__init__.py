"""What is scored: pairs, protocols, synthetic truth, tables."""
