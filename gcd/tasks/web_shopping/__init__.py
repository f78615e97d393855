"""Web shopping, as WebShop plays and judges it and AgentBench v0.2 wraps it."""
