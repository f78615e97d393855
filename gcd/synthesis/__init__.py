"""Pseudo data from the prompt alone: the steps, and the engines that generate for them."""
