"""Measuring an artifact on this machine: latency, throughput, memory, accuracy. Torch-free."""
