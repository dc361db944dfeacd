"""What a group of commits will write, decided before anything is written.

What goes in: commits, one after the other, and two questions to the log: where does a flow stand, is a key there?
What comes out: the rows with their places, the snapshots, and an outcome for each commit.
The one rule: a plan changes nothing but the rows' `seq` and `pos`; a backend applies it whole or forgets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowmetal.store.protocol import (
    Commit,
    CommitResult,
    Duplicate,
    Outcome,
    Row,
    Snapshot,
    StoreConflict,
    StoreError,
)


def by_itself(commits: Sequence[Commit]) -> bool:
    """Whether the group must be taken apart: a commit that removes rows shares its transaction with no other."""
    return len(commits) > 1 and any(commit.remove for commit in commits)


class Plan:
    """The effect of a group on the log."""

    def __init__(self, last_pos: int, last_seq: Callable[[str], int], find: Callable[[str, str], Row | None]) -> None:
        self.first_pos = last_pos + 1
        self.pos = last_pos
        self.seqs: dict[str, int] = {}
        self.rows: list[Row] = []
        self.snapshots: list[tuple[int, Snapshot]] = []
        """Each with the last `pos` before it."""
        self.outcomes: list[Outcome] = []
        self.accepted: list[int] = []
        self.removed: dict[str, int] = {}
        self.keeps_first = False
        """Whether the first row of each flow of which rows are removed stays."""
        self._keyed: dict[tuple[str, str], Row] = {}
        self._last_seq = last_seq
        self._find = find

    @classmethod
    def of(cls, commits: Sequence[Commit], last_pos: int, last_seq: Callable[[str], int], find: Callable[[str, str], Row | None]) -> Plan:
        """The plan of a group, in its order."""
        plan = cls(last_pos, last_seq, find)
        for commit in commits:
            plan.add(commit)
        return plan

    def add(self, commit: Commit) -> None:
        """Take one more commit, or refuse it."""
        refusal = self._refusal(commit)
        if refusal is not None:
            self.outcomes.append(refusal)
            return
        self.seqs.update((flow_id, 0) for flow_id, seq in commit.remove.items() if self._stands_at(flow_id) <= seq)
        self.removed.update(commit.remove)
        for row in commit.rows:
            self._place(row)
        self.snapshots.extend((self.pos, snapshot) for snapshot in commit.snapshots)
        self.accepted.append(len(self.outcomes))
        self.outcomes.append(CommitResult(commit.rows))

    def fail(self, error: Exception) -> list[Outcome]:
        """The outcomes when writing it failed: what was accepted has failed, what was refused stays refused."""
        outcomes = list(self.outcomes)
        for index in self.accepted:
            outcomes[index] = error
        return outcomes

    def _refusal(self, commit: Commit) -> Exception | None:
        if commit.remove and not any(row.flow_id.startswith("$") and row.flow_id not in commit.remove for row in commit.rows):
            return StoreError("a commit that removes rows says so in a stream that stays")
        if commit.unique is not None:
            there = self._find(*commit.unique) or self._keyed.get(commit.unique)
            if there is not None:
                return Duplicate(there)
        for flow_id, expected in commit.expect.items():
            actual = self._stands_at(flow_id)
            if actual != expected:
                return StoreConflict(flow_id, expected, actual)
        return None

    def _stands_at(self, flow_id: str) -> int:
        seq = self.seqs.get(flow_id)
        return self._last_seq(flow_id) if seq is None else seq

    def _place(self, row: Row) -> None:
        row.seq = self.seqs[row.flow_id] = self._stands_at(row.flow_id) + 1
        self.pos += 1
        row.pos = self.pos
        if row.key is not None:
            self._keyed.setdefault((row.kind, row.key), row)
        self.rows.append(row)
