"""archsim: spiking networks on in-memory-computing hardware, event by event."""

__version__ = "0.1.0"
