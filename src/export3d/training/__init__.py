"""Training: CLeBS pre-training (Sec. 3.1) and the two phases of Sec. 3.4, 6.3 and 6.4."""
