"""What goes wrong with an object: one line, naming it."""

from harness.model import HarnessError

MAX_MESSAGE = 400  # characters; an object chooses its own names


class LoadError(HarnessError):
    """Bytes that are no BPF object, or an object that libbpf would refuse."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[:MAX_MESSAGE])
        super().__init__(line if len(message) <= MAX_MESSAGE else f"{line}...")
