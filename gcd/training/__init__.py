"""Training an adapter: examples, losses, the one loop, and what it needs on many processes."""
