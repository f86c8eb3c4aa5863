"""What goes wrong with an object: one line, naming it."""

from harness.model import HarnessError


class LoadError(HarnessError):
    """Bytes that are no BPF object, or an object that libbpf would refuse."""
