"""Plugins in virtual machines: QEMU with a kernel of the distribution and a small guest made from this installation."""
