"""Tools to test flows with: a simulated outside world and exhaustive crashes. Public."""

from flowmetal.testing.crash import Faults, Outcome, Program, check, run
from flowmetal.testing.deftests import Failure, FileReport, TestResult, find_files, run_file, run_source
from flowmetal.testing.world import World

__all__ = ["Failure", "Faults", "FileReport", "Outcome", "Program", "TestResult", "World", "check", "find_files", "run", "run_file", "run_source"]
