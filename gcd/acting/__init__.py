"""Agents in environments: episodes in rounds, here or by an AgentBench server."""
