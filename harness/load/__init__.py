"""From object bytes to linked programs."""

from harness.load.errors import LoadError
from harness.load.linking import Refused
from harness.load.objects import Object, load_object
from harness.load.raw import raw_program

__all__ = ["LoadError", "Object", "Refused", "load_object", "raw_program"]
