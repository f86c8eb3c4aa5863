"""The state of a campaign: one SQLite file.

Files (findings, cases) are written first, under names that follow from the batch; then one
transaction says that the batch is done. So a campaign that was killed between the two writes
the same files again, and nothing is lost or doubled.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.grow.batch import BatchResult
from harness.model import BuildConfig, HarnessError

FORMAT = 4
_SCHEMA = """
CREATE TABLE IF NOT EXISTS campaign (key TEXT PRIMARY KEY, value NOT NULL);
CREATE TABLE IF NOT EXISTS batch (
    number INTEGER PRIMARY KEY, programs INTEGER, streams INTEGER, functions INTEGER,
    builds INTEGER, vectors INTEGER, seconds REAL, lost TEXT);
CREATE TABLE IF NOT EXISTS outcome (name TEXT PRIMARY KEY, count INTEGER);
CREATE TABLE IF NOT EXISTS refusal (message TEXT PRIMARY KEY, count INTEGER);
CREATE TABLE IF NOT EXISTS feature (name TEXT PRIMARY KEY, batch INTEGER);
CREATE TABLE IF NOT EXISTS cover (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS finding (file TEXT PRIMARY KEY, bucket TEXT, known TEXT, batch INTEGER);
CREATE TABLE IF NOT EXISTS bucket (
    name TEXT PRIMARY KEY, file TEXT, known TEXT, count INTEGER, shrunk INTEGER);
CREATE TABLE IF NOT EXISTS pending (number INTEGER PRIMARY KEY, batch INTEGER, what TEXT);
CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, file TEXT);
CREATE TABLE IF NOT EXISTS progress (
    seconds REAL, programs INTEGER, vectors INTEGER, features INTEGER, buckets INTEGER,
    memory INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Found:
    """One program in one build that did not agree."""

    bucket: str
    known: str | None  # the entry of known.toml that explains it
    file: str = ""  # its file; "": one of its like was kept, this one is counted


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program that may become a case: what for, and the build that shows it."""

    number: int
    batch: int
    wanted: frozenset[str]
    config: BuildConfig | None  # None: BPF text


class State:
    """The campaign's SQLite file; every method is one transaction or none."""

    def __init__(
        self, path: Path, seed: int, batch: int, *, resume: bool, parents: bytes = b""
    ) -> None:
        """Open *path*; what is in it already, of a campaign that goes on, holds.

        *batch*: programs of a batch. *parents*: what mutation starts from, packed.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not resume:
                raise HarnessError(f"{path}: a campaign is there: --resume, or another --findings")
            self.db = sqlite3.connect(path, isolation_level=None)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=NORMAL")
            self._create(path, seed, batch, parents)
        except OSError as error:
            raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
        except sqlite3.Error as error:
            raise HarnessError(f"{path}: {error}") from None

    def _create(self, path: Path, seed: int, batch: int, parents: bytes) -> None:
        db = self.db
        old = db.execute("SELECT name FROM sqlite_master WHERE name = 'campaign'").fetchone()
        if old is None:
            db.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        if db.execute("SELECT value FROM campaign WHERE key = 'seed'").fetchone() is None:
            db.execute("BEGIN")
            rows = {"seed": seed, "batch": batch, "format": FORMAT, "parents": parents}
            db.executemany("INSERT INTO campaign VALUES (?, ?)", rows.items())
            db.execute("COMMIT")
        self._load(path)

    @classmethod
    def read(cls, path: Path) -> State:
        """Return the state in *path* to look at: nothing is written, not even beside it.

        A campaign may be running on it.
        """
        self = cls.__new__(cls)
        # without a journal nobody writes, and SQLite need not put one there
        mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
        try:
            self.db = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
        except sqlite3.Error as error:
            raise HarnessError(f"{path}: cannot be read: {error}") from None
        try:
            self._load(path)
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            self.db.close()
            raise HarnessError(f"{path}: not the state of a campaign: {error}") from None
        except HarnessError:
            self.db.close()
            raise
        return self

    def _load(self, path: Path) -> None:
        db = self.db
        values = dict(db.execute("SELECT key, value FROM campaign"))
        if str(values.get("format")) != str(FORMAT):
            raise HarnessError(f"{path}: of another version of crosscheck: name another folder")
        self.seed, self.batch = int(values["seed"]), int(values["batch"])
        self.parents: bytes = values["parents"]
        self.done = {n for (n,) in db.execute("SELECT number FROM batch")}
        self.features = {f for (f,) in db.execute("SELECT name FROM feature")}
        self.covered = {f for (f,) in db.execute("SELECT name FROM cover")}
        self.buckets: dict[str, str] = dict(db.execute("SELECT name, file FROM bucket"))
        self.kept = {n for (n,) in db.execute("SELECT number FROM kept")}
        ((before,),) = db.execute("SELECT coalesce(max(seconds), 0) FROM progress")
        self.before = float(before)  # seconds of earlier sessions

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all of the block or nothing of it."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                if self.db.in_transaction:  # SQLite ends it itself where the disk is full
                    self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            raise HarnessError(
                f"the campaign's state cannot be written: {error}: make room, and go on "
                "with --resume"
            ) from None

    def add(
        self,
        result: BatchResult,
        found: Sequence[Found] = (),
        candidates: Sequence[Candidate] = (),
    ) -> None:
        """Say that a batch is done: what it found, and what is to become of it."""
        new = set().union(*(s.features for s in result.seen)) - self.features
        with self.transaction() as db:
            row = (
                result.number,
                result.programs,
                result.streams,
                result.functions,
                result.builds,
                result.vectors,
                result.seconds,
                result.lost,
            )
            db.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            for name, count in result.outcomes.items():
                _count(db, "outcome", "name", name, count)
            for message, count in result.refusals.items():
                _count(db, "refusal", "message", message, count)
            db.executemany(
                "INSERT OR IGNORE INTO feature VALUES (?, ?)", [(f, result.number) for f in new]
            )
            for one in found:
                self._found(db, one, result.number)
            db.executemany(
                "INSERT OR IGNORE INTO pending VALUES (?, ?, ?)",
                [(c.number, c.batch, _candidate_text(c)) for c in candidates],
            )
        self.done.add(result.number)
        self.features |= new
        for one in found:
            self.buckets.setdefault(one.bucket, one.file)

    def _found(self, db: sqlite3.Connection, one: Found, batch: int) -> None:
        if one.file:
            db.execute(
                "INSERT OR IGNORE INTO finding VALUES (?, ?, ?, ?)",
                (one.file, one.bucket, one.known, batch),
            )
        db.execute(
            "INSERT INTO bucket VALUES (?, ?, ?, 1, 0) "
            "ON CONFLICT (name) DO UPDATE SET count = count + 1",
            (one.bucket, one.file, one.known),
        )

    def keep(self, number: int, file: str, features: frozenset[str]) -> None:
        """Say that program *number* became the case in *file*, "" for none, and what it covers."""
        with self.transaction() as db:
            db.execute("DELETE FROM pending WHERE number = ?", (number,))
            if file:
                db.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (number, file))
            db.executemany("INSERT OR IGNORE INTO cover VALUES (?)", [(f,) for f in features])
        if file:
            self.kept.add(number)
        self.covered |= features

    def cover(self, features: frozenset[str]) -> None:
        """Say that the corpus covers *features*."""
        with self.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO cover VALUES (?)", [(f,) for f in features])
        self.covered |= features

    def shrunk(self, name: str) -> None:
        """Say that a bucket's representative is as small as it gets."""
        with self.transaction() as db:
            db.execute("UPDATE bucket SET shrunk = 1 WHERE name = ?", (name,))

    def unshrunk(self) -> list[tuple[str, str]]:
        """Return the buckets, with their first finding, that no one made small yet."""
        return self.table(
            "SELECT name, file FROM bucket WHERE shrunk = 0 AND known IS NULL AND file != ''"
        )

    def pending(self) -> list[Candidate]:
        """Return the candidates that were not made cases yet."""
        rows = self.table("SELECT number, batch, what FROM pending ORDER BY number")
        return [_candidate(*row) for row in rows]

    def sample(self, row: tuple[float, int, int, int, int, int]) -> None:
        """Note how far the campaign is: seconds, programs, vectors, features, buckets, bytes."""
        with self.transaction() as db:
            db.execute("INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?)", row)

    def table(self, query: str) -> list[Any]:
        """Return the rows of *query*."""
        return self.db.execute(query).fetchall()

    def close(self) -> None:
        """Leave one file behind."""
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()


def _candidate_text(one: Candidate) -> str:
    config = one.config
    axes = [config.compiler, config.opt, config.mcpu, config.linkage] if config else None
    return json.dumps({"wanted": sorted(one.wanted), "config": axes})


def _candidate(number: int, batch: int, text: str) -> Candidate:
    what = json.loads(text)
    config = BuildConfig(*what["config"]) if what["config"] else None
    return Candidate(number, batch, frozenset(what["wanted"]), config)


def _count(db: sqlite3.Connection, table: str, key: str, name: str, count: int) -> None:
    db.execute(
        f"INSERT INTO {table} ({key}, count) VALUES (?, ?) "
        f"ON CONFLICT ({key}) DO UPDATE SET count = count + excluded.count",
        (name, count),
    )
