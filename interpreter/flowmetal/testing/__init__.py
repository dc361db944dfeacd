"""Tools to test flows with: a simulated outside world and exhaustive crashes. Public."""

from flowmetal.testing.crash import Conditions, Outcome, Program, check, run
from flowmetal.testing.deftests import Failure, FileReport, TestResult, find_files, run_file, run_source
from flowmetal.testing.faults import Faults
from flowmetal.testing.replays import Replay, replay
from flowmetal.testing.world import World

__all__ = [
    "Conditions", "Failure", "Faults", "FileReport", "Outcome", "Program", "Replay", "TestResult", "World", "check", "find_files", "replay", "run", "run_file",
    "run_source",
]  # fmt: skip
