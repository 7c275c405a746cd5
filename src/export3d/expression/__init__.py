"""CLeBS, the contrastively learned basis scaling of Sec. 3.1."""
