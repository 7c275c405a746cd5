"""The offline identity network and its face crop (Sec. 4.2, CSIM)."""
