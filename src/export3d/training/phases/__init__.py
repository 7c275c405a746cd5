"""What is trained: CLeBS (Sec. 3.1) and the two phases of the model (Secs. 6.3-6.4)."""
