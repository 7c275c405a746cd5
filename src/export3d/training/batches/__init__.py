"""What a training step reads: frames, pairs, windows and points, in an order that the seed fixes."""
