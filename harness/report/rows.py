"""JSON objects read with their types: a page never shows what is not what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LARGEST = 1 << 64  # that a register can hold, and more than anything we count


class Row:
    """One JSON object; its methods raise ValueError that says where which field is wrong."""

    __slots__ = ("value", "where")

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is no object")
        self.value: dict[str, Any] = value
        self.where = where

    def has(self, key: str) -> bool:
        """Return whether there is *key*, and not null."""
        return self.value.get(key) is not None

    def text(self, key: str) -> str:
        """Return a string, "" for null or nothing."""
        found = self.value.get(key)
        if found is not None and not isinstance(found, str):
            raise self._wrong(key, "no string")
        return found or ""

    def number(self, key: str) -> int | float:
        """Return a number, 0 for null or nothing."""
        found = self.value.get(key)
        if found is None:
            return 0
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self._wrong(key, "no number")
        if not -LARGEST < found < LARGEST:  # nor what is not a number
            raise self._wrong(key, "out of range")
        return found

    def whole(self, key: str) -> int:
        """Return a whole number, 0 for null or nothing."""
        found = self.number(key)
        if not isinstance(found, int):
            raise self._wrong(key, "no whole number")
        return found

    def octets(self, key: str) -> bytes:
        """Return what hexadecimal digits say."""
        try:
            return bytes.fromhex(self.text(key))
        except ValueError:
            raise self._wrong(key, "not hexadecimal") from None

    def row(self, key: str) -> Row:
        """Return an object."""
        return Row(self.value.get(key), f"{self.where}: {key}")

    def rows(self, key: str) -> list[Row]:
        """Return objects, none for null or nothing."""
        return [Row(v, f"{self.where}: {key}[{n}]") for n, v in enumerate(self._list(key))]

    def texts(self, key: str) -> list[str]:
        """Return strings, none for null or nothing."""
        found = self._list(key)
        if not all(isinstance(value, str) for value in found):
            raise self._wrong(key, "not all strings")
        return list(found)

    def counts(self, key: str) -> dict[str, int]:
        """Return whole numbers by name, none for null or nothing."""
        found = Row(self.value.get(key) or {}, f"{self.where}: {key}")
        return {name: found.whole(name) for name in found.value}

    def _list(self, key: str) -> Sequence[Any]:
        found = self.value.get(key)
        if found is not None and not isinstance(found, list):
            raise self._wrong(key, "no list")
        return found or []

    def _wrong(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.where}: {key} is {what}")
