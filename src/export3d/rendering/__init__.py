"""Volume rendering (Eqs. 9-10): pure geometry, no networks."""
