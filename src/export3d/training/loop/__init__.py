"""How a run goes on: steps, states, folders, several processes."""
