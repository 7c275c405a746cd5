"""Every table and figure of the paper's evaluation from one command (Secs. 4.2 and 4.3)."""
