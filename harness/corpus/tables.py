"""TOML tables whose fields have the types that are asked for, or say so."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.model import HarnessError

MAX_SIZE = 4 << 20  # bytes of a case file
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a fraction",
          list: "a list", dict: "a table"}  # fmt: skip


def parse(path: Path) -> dict[str, Any]:
    """Return the TOML of *path*; raises HarnessError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise HarnessError(f"{path}: a case file has at most {MAX_SIZE >> 20} MiB")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise HarnessError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise HarnessError(f"{path}: nested too deep") from None
    except ValueError as error:  # not UTF-8, not TOML
        raise HarnessError(f"{path}: {error}") from None


class Table:
    """A TOML table and its place; what is read from it has the type that is asked for.

    Raises ValueError, which names place, key and what was expected.
    """

    def __init__(self, table: object, where: str, known: str | None) -> None:
        if not isinstance(table, dict):
            raise ValueError(f"{where} is a table, not {_kind(table)}")
        self.keys: tuple[str, ...] = tuple(table)
        self._table: dict[str, Any] = table
        self._where = where
        for key in table:
            if known is not None and key not in known.split():
                raise ValueError(f"{where} has no {key!r} (it has {', '.join(known.split())})")

    def wrong(self, key: str, text: str) -> ValueError:
        """Return the error that *text* is about *key*."""
        return ValueError(f"{self._where}: {key}: {text}")

    def value(self, key: str) -> Any:
        """Return what *key* has, None if there is none (TOML has no None)."""
        return self._table.get(key)

    def _of(self, key: str, kind: type, default: Any) -> Any:
        value = self._table.get(key)
        if value is None:
            if default is ...:
                raise ValueError(f"{self._where} needs {key!r}")
            return default
        if type(value) is not kind:
            raise self.wrong(key, f"expected {_KINDS[kind]}, not {_kind(value)}")
        return value

    def string(self, key: str, default: Any = ...) -> Any:
        """Return text; without a default it must be there."""
        return self._of(key, str, default)

    def integer(self, key: str, default: Any = ...) -> Any:
        """Return a number from 0 up."""
        value = self._of(key, int, default)
        if value is not None and value < 0:
            raise self.wrong(key, f"expected a number from 0 up, not {value}")
        return value

    def boolean(self, key: str) -> bool:
        """Return a truth value, false if there is none."""
        return bool(self._of(key, bool, False))

    def strings(self, key: str, default: Sequence[str]) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self._of(key, list, list(default))
        for value in values:
            if not isinstance(value, str):
                raise self.wrong(key, f"expected a list of texts, found {_kind(value)}")
        return tuple(values)

    def choice(self, key: str, choices: Sequence[str], default: Any = ...) -> str:
        """Return one of *choices*."""
        value: str = self._of(key, str, default)
        if value not in choices and value != default:
            raise self.wrong(key, f"expected {_or(choices)}, not {value!r}")
        return value

    def choices(self, key: str, choices: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Return a list of some of *choices*."""
        values = self.strings(key, default)
        for value in values:
            if value not in choices:
                raise self.wrong(key, f"expected {_or(choices)}, not {value!r}")
        return values

    def hex(self, key: str) -> bytes | None:
        """Return the bytes that text of hexadecimal digits means."""
        text = self._of(key, str, None)
        try:
            return None if text is None else bytes.fromhex(text)
        except ValueError:
            raise self.wrong(key, "expected an even number of hexadecimal digits") from None

    def table(self, key: str, known: str | None) -> Table | None:
        """Return a table within this one."""
        if key not in self._table:
            return None
        where = f"[{key}]" if self._where == "the case" else f"{self._where[:-1]}.{key}]"
        return Table(self._table[key], where, known)

    def named(self, key: str, known: str) -> list[tuple[str, Table]]:
        """Return the tables in table *key*, with their names."""
        outer = self.table(key, None)
        return [] if outer is None else [(n, _must(outer.table(n, known))) for n in outer.keys]

    def tables(self, key: str, known: str) -> list[Table]:
        """Return the array of tables *key*."""
        values = self._of(key, list, [])
        return [Table(v, f"[[{key}]] {n}", known) for n, v in enumerate(values, 1)]


def _must(table: Table | None) -> Table:
    assert table is not None
    return table


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")


def _or(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
