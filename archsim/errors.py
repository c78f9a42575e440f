"""The four ways archsim fails, and the exit code each one has.

None of the classes defines `__init__`: SimPy and pickle re-create an exception as `type(e)(*e.args)`,
so the full text is built by the caller and passed as one string.
"""


class ArchsimError(Exception):
    """Base of every error that archsim raises on purpose."""

    exit_code = 1


class ConfigError(ArchsimError):
    """A hardware file, cost library or override is wrong."""

    exit_code = 2


class WorkloadError(ArchsimError):
    """A network or its input cannot be read or makes no sense."""

    exit_code = 2


class MappingError(ArchsimError):
    """The network does not fit on the chip, or cannot be mapped on it."""

    exit_code = 2


class SimulationError(ArchsimError):
    """The run itself failed: a deadlock, or a conservation law that does not hold."""

    exit_code = 1
