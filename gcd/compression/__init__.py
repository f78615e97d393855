"""Prompt compression by a token classifier, on character offsets: LLMLingua-2, arXiv 2403.12968."""
