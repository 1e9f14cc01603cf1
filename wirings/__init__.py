"""Wirings of neural networks, without configuration: so far, how many edges each layer may use."""
