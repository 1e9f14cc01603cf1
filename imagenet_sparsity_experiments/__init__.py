"""Sparse ResNets on ImageNet: every layer keeps its strongest weights."""
