"""Clips of heads: motion, the noisy extractor, rendered shards and the stream of them."""
