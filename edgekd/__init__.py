"""edgekd: distil, quantize, prove and measure small models for edge medical devices."""

__version__ = "0.1.0"
